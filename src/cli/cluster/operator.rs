//! The operator's own resources.

use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::Value;

use super::{Cluster, Error};
use crate::api::{ClusterTracing, NodeTracing, SINGLETON};

/// Field manager of what a person changes by this program.
pub(in crate::cli) const FIELD_MANAGER: &str = "kubectl-tracing";

impl Cluster {
    /// The one ClusterTracing.
    pub(in crate::cli) async fn cluster_tracing(&self) -> Result<ClusterTracing, Error> {
        let api = Api::<ClusterTracing>::all(self.client.clone());
        api.get(SINGLETON).await.map_err(|error| Error::of_ours("get the ClusterTracing", error))
    }

    /// What each node's agent reports.
    pub(in crate::cli) async fn node_tracings(&self) -> Result<Vec<NodeTracing>, Error> {
        let api = Api::<NodeTracing>::all(self.client.clone());
        let list = api.list(&ListParams::default()).await.map_err(|error| Error::of_ours("list the NodeTracings", error))?;
        Ok(list.items)
    }

    /// Changes fields of the one ClusterTracing, by a JSON merge patch.
    pub(in crate::cli) async fn change(&self, patch: &Value) -> Result<ClusterTracing, Error> {
        let api = Api::<ClusterTracing>::all(self.client.clone());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(SINGLETON, &params, &Patch::Merge(patch)).await.map_err(|error| Error::of_ours("change the ClusterTracing", error))
    }

    /// Writes the one ClusterTracing as it is here; refused when somebody else has written it since it was read.
    pub(in crate::cli) async fn replace(&self, resource: &ClusterTracing) -> Result<(), Error> {
        let api = Api::<ClusterTracing>::all(self.client.clone());
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let replaced = api.replace(SINGLETON, &params, resource).await;
        replaced.map(drop).map_err(|error| Error::of_ours("replace the ClusterTracing", error))
    }
}
