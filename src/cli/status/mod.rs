//! `status`: one screen from the resource alone.

pub(super) mod rate;
mod screen;

use serde::Serialize;

use super::cluster::Connection;
use super::{Error, Exit, Palette, Report, json};
use crate::api::clustertracing::{ClusterTracingSpec, ClusterTracingStatus};
use crate::api::{ClusterTracing, ConditionType};

/// Show how tracing of the cluster stands, and what it waits for
///
/// One screen from the ClusterTracing alone, which needs no right but to get it: conditions, nodes and their components, the collector, the
/// exporters, and what is waited for. Exit code 0: Ready, for the spec as it stands; 1: not, or not yet; there is no ClusterTracing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  # How it stands
  kubectl tracing status

  # For a program: which nodes are not as requested
  kubectl tracing status -o json | jq '.status.nodes[] | select(.state != \"UpToDate\")'")]
pub(super) struct Status {
    /// Instead of a screen: json, as docs/schema/status.json describes it
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT")]
    output: Option<json::Format>,
    #[command(flatten)]
    connection: Connection,
}

/// What `status -o json` prints.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename = "Status", rename_all = "camelCase")]
pub(in crate::cli) struct Document {
    /// Where it stands as a whole.
    summary: Standing,
    /// `metadata.generation` of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    /// What is asked for.
    spec: ClusterTracingSpec,
    /// What the controller says of it.
    status: ClusterTracingStatus,
}

/// Where a resource stands as a whole, as kstatus reads its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema, strum::IntoStaticStr)]
pub(in crate::cli) enum Standing {
    /// As requested.
    Ready,
    /// A change is under way, or waited for; or the controller has not seen the spec yet.
    Reconciling,
    /// A person is needed.
    Stalled,
    /// Not as requested, and nothing is under way.
    NotReady,
    /// It is being deleted.
    Deleting,
}

impl Standing {
    pub(in crate::cli) fn of(resource: &ClusterTracing) -> Self {
        let is_true = |kind| condition(resource, kind).is_some_and(|condition| condition.status == "True");
        let observed = resource.status.as_ref().and_then(|status| status.observed_generation);
        if resource.metadata.deletion_timestamp.is_some() {
            Self::Deleting
        } else if observed != resource.metadata.generation {
            Self::Reconciling
        } else if is_true(ConditionType::Stalled) {
            Self::Stalled
        } else if is_true(ConditionType::Reconciling) {
            Self::Reconciling
        } else if is_true(ConditionType::Ready) {
            Self::Ready
        } else {
            Self::NotReady
        }
    }
}

/// One of its conditions.
pub(in crate::cli) fn condition(
    resource: &ClusterTracing,
    kind: ConditionType,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    let name: &str = kind.into();
    resource.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == name)
}

impl Status {
    pub(super) async fn run(&self, palette: Palette) -> Result<Report, Error> {
        let cluster = self.connection.open().await.map_err(Error::Cluster)?;
        let resource = cluster.cluster_tracing().await.map_err(Error::Cluster)?;
        let standing = Standing::of(&resource);
        let exit = if standing == Standing::Ready { Exit::Ok } else { Exit::Findings };
        let data = match self.output {
            Some(json::Format::Json) => json::document(Document {
                summary: standing,
                generation: resource.metadata.generation,
                spec: resource.spec,
                status: resource.status.unwrap_or_default(),
            }),
            None => screen::screen(&resource, standing, palette),
        };
        Ok(Report { exit, ..Report::data(data) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_stands_where_its_conditions_say_unless_they_answer_another_spec() {
        for (observed, conditions, expected) in [
            (Some(2), vec![("Ready", "True")], Standing::Ready),
            (Some(1), vec![("Ready", "True")], Standing::Reconciling),
            (None, vec![], Standing::Reconciling),
            (Some(2), vec![("Ready", "False"), ("Reconciling", "True")], Standing::Reconciling),
            (Some(2), vec![("Ready", "False"), ("Stalled", "True")], Standing::Stalled),
            (Some(2), vec![("Ready", "False")], Standing::NotReady),
            (Some(2), vec![], Standing::NotReady),
        ] {
            let condition = |(kind, status): &(&str, &str)| serde_json::json!({"type": kind, "status": status, "reason": "X", "message": "", "lastTransitionTime": "2026-11-21T09:01:43Z"});
            let conditions: Vec<_> = conditions.iter().map(condition).collect();
            let resource = serde_json::json!({
                "apiVersion": "clustertracing.dev/v1alpha1", "kind": "ClusterTracing", "metadata": {"name": "cluster", "generation": 2}, "spec": {},
                "status": {"observedGeneration": observed, "conditions": conditions},
            });
            let resource: ClusterTracing = serde_json::from_value(resource).unwrap();
            assert_eq!(Standing::of(&resource), expected, "{observed:?} {conditions:?}");
        }
    }
}
