//! What leaves no node.

use serde_json::{Value, json};

/// Span attributes that name objects or hold parts of requests. Span names are routes (`/api/v1/namespaces/{:namespace}/…`) and stay.
const SENSITIVE: &[&str] = &[
    // the request's path and query: object names, selectors, the commands of exec
    "http.target",
    "http.url",
    "url.full",
    "url.path",
    "url.query",
    "url",
    "name",
    "continue",
    // keys in etcd: kind, namespace and name
    "key",
    "range_begin",
    "range_end",
    "compare_first_key",
    "success_first_key",
];

/// The processor that removes them.
pub(super) fn processor() -> Value {
    let actions: Vec<_> = SENSITIVE.iter().map(|key| json!({ "key": key, "action": "delete" })).collect();
    json!({ "actions": actions })
}
