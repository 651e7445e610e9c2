//! Finds the trace of a request in the trace store, in which spans arrive in batches, seconds after the request.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::proxy::Sent;
use crate::api::ComponentName;
use crate::cli::cluster::{self, Cluster, Query};
use crate::cli::output::Output;
use crate::cli::trace::model::{Kind, SpanId, Trace};
use crate::component::spans::service_name;

/// How often the store is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Who waits for longer is told why.
const TOLD_AFTER: Duration = Duration::from_secs(3);
/// kube-apiserver and etcd send their spans every five seconds (`OTEL_BSP_SCHEDULE_DELAY`, unless it is set), and the collector has its own batches.
pub(super) const ETCD_WITHIN: Duration = Duration::from_secs(7);
/// What has not come by now was not traced, or was lost.
pub(super) const COMES_WITHIN: Duration = Duration::from_secs(10);
/// How much earlier than it was sent a request may seem to have begun: the answer to how long ago that is takes its time.
const SLACK: Duration = Duration::from_secs(1);
/// Traces that are looked through for one without a known id.
const SEARCHED: u16 = 1000;
/// The attribute of the request's span (1.34 on), or of its handler's, that is the answer's header `Audit-Id`.
const AUDIT_ID: &str = "audit-id";

/// How much of a trace has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Come {
    /// Nothing.
    Nothing,
    /// Not the request's own span, which ends last.
    Parts,
    /// All but what etcd has to say of its calls.
    WithoutEtcd,
    /// All.
    Whole,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Draw what there is.
    Draw,
    /// Ask again.
    Wait,
    /// It will not come.
    GiveUp,
}

/// How much has come of the trace of a request that was sent as a part of `parent`.
pub(super) fn come(trace: Option<&Trace>, parent: SpanId) -> Come {
    let Some(trace) = trace else { return Come::Nothing };
    let api_server = service_name(ComponentName::KubeApiserver);
    let is_request = |span: &&crate::cli::trace::model::Span| {
        span.component == api_server && span.kind == Kind::Server && span.parent.is_none_or(|of| of == parent)
    };
    if !trace.spans().iter().any(|span| is_request(&span)) {
        return Come::Parts;
    }
    let mut calls = trace.spans().iter().filter(|span| span.kind == Kind::Client && span.name.starts_with("etcdserverpb."));
    let is_answered = |call: &crate::cli::trace::model::Span| trace.spans().iter().any(|span| span.parent == Some(call.id));
    if calls.all(is_answered) { Come::Whole } else { Come::WithoutEtcd }
}

/// What to do once so much has come, so long after kubectl ended. `etcd`: whether etcd is known to send spans.
pub(super) fn next(come: Come, waited: Duration, etcd: bool) -> Next {
    match come {
        Come::Whole => Next::Draw,
        Come::WithoutEtcd if waited >= if etcd { ETCD_WITHIN } else { TOLD_AFTER } => Next::Draw,
        Come::Parts if waited >= COMES_WITHIN => Next::Draw,
        Come::Nothing if waited >= COMES_WITHIN => Next::GiveUp,
        Come::Nothing | Come::Parts | Come::WithoutEtcd => Next::Wait,
    }
}

/// Looks for traces.
pub(super) struct Search<'a> {
    /// Where.
    pub(super) cluster: &'a Cluster,
    /// Whether etcd is known to send spans.
    pub(super) etcd: bool,
    /// When kubectl ended.
    pub(super) since: Instant,
}

impl Search<'_> {
    /// The trace of a request, or what there is of it. `None` where none came.
    pub(super) async fn trace(&self, sent: &Sent, output: &mut dyn Output) -> Result<Option<Trace>, cluster::Error> {
        let mut looked_through = BTreeMap::new();
        let mut told = false;
        let parent = SpanId(sent.context.parent);
        loop {
            let found = match self.look(sent, &mut looked_through).await {
                Ok(found) => found,
                Err(error) if error.may_pass() => None,
                Err(error) => return Err(error),
            };
            match next(come(found.as_ref(), parent), self.since.elapsed(), self.etcd) {
                Next::Draw => return Ok(found),
                Next::GiveUp => return Ok(None),
                Next::Wait => {}
            }
            if self.since.elapsed() >= TOLD_AFTER && !std::mem::replace(&mut told, true) {
                // Nobody who reads notes has gone for want of one.
                drop(output.note("waiting for the spans: kube-apiserver and etcd send theirs every few seconds"));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn look(&self, sent: &Sent, looked_through: &mut BTreeMap<String, usize>) -> Result<Option<Trace>, cluster::Error> {
        let named = self.cluster.traces([sent.context.trace.to_string()]).await?;
        if let Some(named) = named.into_iter().next() {
            return Ok(Some(named));
        }
        let audit_id = sent.answer.as_ref().and_then(|answer| answer.audit_id.as_deref());
        let Some(audit_id) = audit_id.filter(|_| !sent.is_trusted) else { return Ok(None) };
        let since = sent.at.elapsed() + SLACK;
        let query = Query {
            since: Some(format!("{}ms", since.as_millis())),
            service: Some(service_name(ComponentName::KubeApiserver).to_owned()),
            limit: SEARCHED,
            ..Query::default()
        };
        let summaries = self.cluster.summaries(&query).await?.traces;
        let may_be = summaries.into_iter().filter(|trace| may_be(&trace.root_name, &sent.method, &sent.path));
        // A trace that has grown since may have it now.
        let new = may_be.filter(|trace| looked_through.insert(trace.trace_id.clone(), trace.spans) != Some(trace.spans));
        let new: Vec<String> = new.map(|trace| trace.trace_id).collect();
        let found = self.cluster.traces(new).await?.into_iter().find(|trace| has_audit_id(trace, audit_id));
        if let Some(found) = &found {
            // It is read again until it is whole.
            looked_through.remove(&found.id().to_string());
        }
        Ok(found)
    }
}

/// Whether a trace may be this request's, by the name of its first span: `GET /api/v1/namespaces/{:namespace}/pods` since 1.31, and before it one
/// name for all. Reading traces is a request, too, and would be looked through otherwise.
fn may_be(root_name: &str, method: &str, path: &str) -> bool {
    let Some((of, route)) = root_name.split_once(' ') else { return [method, "KubernetesAPI"].contains(&root_name) };
    let parts: Vec<&str> = path.split('/').collect();
    of == method && route.split('/').all(|part| part.starts_with('{') || parts.contains(&part))
}

fn has_audit_id(trace: &Trace, audit_id: &str) -> bool {
    trace.spans().iter().any(|span| span.attribute(&[AUDIT_ID]) == Some(audit_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::trace::model::{Span, TraceId};

    const PARENT: SpanId = SpanId([9; 8]);

    fn span(id: u8, parent: Option<SpanId>, component: &str, name: &str, kind: Kind) -> Span {
        Span {
            id: SpanId([id; 8]),
            parent,
            component: component.to_owned(),
            name: name.to_owned(),
            kind,
            start: u64::from(id),
            ..Span::default()
        }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        Trace::new(TraceId([1; 16]), spans)
    }

    #[test]
    fn a_trace_is_whole_with_the_requests_span_and_etcds_answers() {
        let request = |parent| span(1, parent, "apiserver", "GET /api/v1/namespaces", Kind::Server);
        let call = || span(2, Some(SpanId([1; 8])), "apiserver", "etcdserverpb.KV/Range", Kind::Client);
        let answered = || span(3, Some(SpanId([2; 8])), "etcd", "etcdserverpb.KV/Range", Kind::Server);
        for (spans, expected) in [
            (vec![request(Some(PARENT))], Come::Whole),
            (vec![request(None)], Come::Whole),
            (vec![request(Some(SpanId([7; 8])))], Come::Parts),
            (vec![call(), answered()], Come::Parts),
            (vec![request(Some(PARENT)), call()], Come::WithoutEtcd),
            (vec![request(Some(PARENT)), call(), answered()], Come::Whole),
        ] {
            assert_eq!(come(Some(&trace(spans.clone())), PARENT), expected, "{spans:?}");
        }
        assert_eq!(come(None, PARENT), Come::Nothing);
    }

    #[test]
    fn what_is_whole_is_drawn_at_once_and_nothing_is_waited_for_longer_than_ten_seconds() {
        let seconds = Duration::from_secs;
        for (come, waited, etcd, expected) in [
            (Come::Whole, seconds(0), true, Next::Draw),
            (Come::WithoutEtcd, seconds(3), true, Next::Wait),
            (Come::WithoutEtcd, seconds(7), true, Next::Draw),
            (Come::WithoutEtcd, seconds(2), false, Next::Wait),
            (Come::WithoutEtcd, seconds(3), false, Next::Draw),
            (Come::Parts, seconds(7), true, Next::Wait),
            (Come::Parts, seconds(10), true, Next::Draw),
            (Come::Nothing, seconds(9), true, Next::Wait),
            (Come::Nothing, seconds(10), true, Next::GiveUp),
        ] {
            assert_eq!(next(come, waited, etcd), expected, "{come:?} {waited:?} {etcd}");
        }
    }

    #[test]
    fn only_traces_of_such_a_request_are_looked_through() {
        for (root, expected) in [
            ("GET /api/v1/namespaces/{:namespace}/pods", true),
            ("KubernetesAPI", true),
            ("GET", true),
            ("POST /api/v1/namespaces/{:namespace}/pods", false),
            ("GET /api/v1/namespaces/{:namespace}/services/{:name}/proxy/{:path}", false),
        ] {
            assert_eq!(may_be(root, "GET", "/api/v1/namespaces/shop/pods"), expected, "{root}");
        }
    }

    #[test]
    fn a_trace_is_found_by_the_audit_id_of_any_of_its_spans() {
        let mut handler = span(2, Some(SpanId([1; 8])), "apiserver", "List", Kind::Internal);
        handler.attributes.insert("audit-id".to_owned(), "7".to_owned());
        let trace = trace(vec![span(1, None, "apiserver", "KubernetesAPI", Kind::Server), handler]);
        assert!(has_audit_id(&trace, "7") && !has_audit_id(&trace, "8"));
    }
}
