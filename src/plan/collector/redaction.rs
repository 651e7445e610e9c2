//! What leaves no node: names of objects, keys of etcd, requests, and texts that quote them.
//!
//! A rule is a list of statements of the collector's `transform` processor, and a row of `docs/redaction.md`, which is written from [`reference()`].
//! Where a value has a part that is worth knowing and harmless (which resource, which route), that part stays.
//!
//! What kube-apiserver and etcd put into spans was read in their sources (kube-apiserver 1.37: `apiserver/pkg/endpoints/handlers/trace_util.go`,
//! `storage/etcd3/store.go`, `storage/cacher`, `admission/plugin/webhook`; etcd 3.7: `server/etcdserver/v3_server.go`, `api/v3rpc/watch.go`).
//! Their event names are constants, and neither puts attributes on links; resources and scopes name the process, not the request.

use serde_json::{Value, json};
use strum::{EnumIter, IntoEnumIterator};

/// A kind of thing that is taken out of spans. Each is a field of `spec.collector.redactionRules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, EnumIter)]
pub enum Rule {
    /// Keys of etcd: kind, namespace and name of an object.
    EtcdKeys,
    /// Paths and queries of requests: names, selectors, the commands of exec.
    RequestPaths,
    /// The name of the object that a request is about.
    ObjectNames,
    /// Texts of errors, which quote all of the above.
    ErrorMessages,
}

/// Attributes that hold a key of etcd.
const KEYS: &[&str] = &["key", "range_begin", "range_end", "compare_first_key", "success_first_key"];
/// Attributes that hold a request's path, or its URL; `url` is kube-apiserver's own, the others are OpenTelemetry's old and new conventions.
const PATHS: &[&str] = &["http.target", "http.url", "url", "url.path", "url.full"];
/// Attributes of spans and events that hold an error's text.
const ERRORS: &str = "^(err|error|error[.]message|exception[.](message|stacktrace))$";

/// A key up to its resource. kube-apiserver's spans leave out etcd's prefix; a group has a dot, a built-in resource has none.
const KEY: &str = "(?s)^((?:/registry)?(?:/[^/]*[.][^/]*)?/[^/]+)/.*$";
/// The same, where only the prefix tells that it is a key.
const REGISTRY_KEY: &str = "(?s)^(/registry(?:/[^/]*[.][^/]*)?/[^/]+)/.*$";
/// A route of the Kubernetes API up to the resource; spans are named after the verb and the route.
const API: &str = "(?:[A-Z]+ )?(?:https?://[^/]*)?(?:/api/[^/]+|/apis/[^/]+/[^/]+)(?:/watch)?";

impl Rule {
    /// The field of `spec.collector.redactionRules`.
    pub fn field(self) -> &'static str {
        match self {
            Self::EtcdKeys => "etcdKeys",
            Self::RequestPaths => "requestPaths",
            Self::ObjectNames => "objectNames",
            Self::ErrorMessages => "errorMessages",
        }
    }

    /// For people: where it is found, what becomes of it, an example before and after.
    fn row(self) -> [String; 4] {
        let code = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::EtcdKeys => [
                format!("{}, and any attribute that begins with `/registry/`; `continue`", code(KEYS)),
                "cut after the resource; what is not a path is emptied; `continue`, which holds a key in base64, is removed".into(),
                "`/registry/secrets/shop/db`".into(),
                "`/registry/secrets/{key}`".into(),
            ],
            Self::RequestPaths => [
                format!("{}, `url.query`, and any attribute, span name or event name that begins with a route of the API", code(PATHS)),
                "becomes the route, as in kube-apiserver's span names; the query is removed; of other paths the first part stays".into(),
                "`/api/v1/namespaces/shop/pods/web-0/exec?command=id`".into(),
                "`/api/v1/namespaces/{:namespace}/pods/{:name}/exec`".into(),
            ],
            Self::ObjectNames => [code(&["name"]), "removed".into(), "`db`".into(), "–".into()],
            Self::ErrorMessages => [
                format!(
                    "the message of a span's status; {} of spans and events",
                    code(&["err", "error", "error.message", "exception.message", "exception.stacktrace"])
                ),
                "removed; the status' code and `exception.type` stay".into(),
                "`secrets \"db\" not found`".into(),
                "–".into(),
            ],
        }
    }

    fn span_statements(self) -> Vec<String> {
        let attribute = |name: &str| format!("span.attributes[\"{name}\"]");
        match self {
            Self::EtcdKeys => {
                let of = |key: &&str| {
                    let key = attribute(key);
                    [replace(&key, KEY, "$1/{key}"), format!("set({key}, \"\") where {key} != nil and not IsMatch({key}, \"^/\")")]
                };
                let all = replace_all("span.attributes", REGISTRY_KEY, "$1/{key}");
                KEYS.iter().flat_map(of).chain([all, "delete_key(span.attributes, \"continue\")".to_owned()]).collect()
            }
            Self::RequestPaths => {
                let other = |path: &&str| {
                    let path = attribute(path);
                    replace(&path, "(?s)^((?:https?://[^/]*)?/[^/]*)/.*$", "$1/{:path}")
                        + &format!(" where not IsMatch({path}, \"^(?:https?://[^/]*)?/apis?/\")")
                };
                let routes = routes()
                    .into_iter()
                    .flat_map(|(pattern, route)| [replace_all("span.attributes", &pattern, route), replace("span.name", &pattern, route)]);
                routes.chain(PATHS.iter().map(other)).chain(["delete_key(span.attributes, \"url.query\")".to_owned()]).collect()
            }
            Self::ObjectNames => vec!["delete_key(span.attributes, \"name\")".to_owned()],
            Self::ErrorMessages => {
                vec!["set(span.status.message, \"\")".to_owned(), format!("delete_matching_keys(span.attributes, \"{ERRORS}\")")]
            }
        }
    }

    fn event_statements(self) -> Vec<String> {
        match self {
            Self::EtcdKeys => vec![replace_all("spanevent.attributes", REGISTRY_KEY, "$1/{key}")],
            Self::RequestPaths => routes()
                .into_iter()
                .flat_map(|(pattern, route)| {
                    [replace_all("spanevent.attributes", &pattern, route), replace("spanevent.name", &pattern, route)]
                })
                .collect(),
            Self::ObjectNames => vec!["delete_key(spanevent.attributes, \"name\")".to_owned()],
            Self::ErrorMessages => vec![format!("delete_matching_keys(spanevent.attributes, \"{ERRORS}\")")],
        }
    }
}

/// Patterns of paths, and the routes that they become. Made one after the other: what the first ones wrote, with `{`, the last one passes over.
fn routes() -> [(String, &'static str); 4] {
    [
        // Without the query.
        ("(?s)^((?:[A-Z]+ )?(?:https?://[^/?#]*)?/[^?#]*)[?#].*$".to_owned(), "$1"),
        // An object in a namespace, and its subresource; what follows a proxy is cut.
        (format!("(?s)^({API}/namespaces)/[^/]+(/[^/]+)/[^/]+(/[a-z]+)?.*$"), "$1/{:namespace}$2/{:name}$3"),
        // A namespace, or a list in one.
        (format!("(?s)^({API}/namespaces)/[^/{{]+(/[^/]+)?/?$"), "$1/{:namespace}$2"),
        // An object in no namespace.
        (format!("(?s)^({API}/[^/]+)/[^/{{]+(/[a-z]+)?.*$"), "$1/{:name}$2"),
    ]
}

fn replace(target: &str, pattern: &str, by: &str) -> String {
    format!("replace_pattern({target}, \"{pattern}\", \"{by}\")")
}

fn replace_all(target: &str, pattern: &str, by: &str) -> String {
    format!("replace_all_patterns({target}, \"value\", \"{pattern}\", \"{by}\")")
}

/// The processor that applies `rules`. A statement that fails keeps its spans from leaving at all.
pub(super) fn processor(rules: &[Rule]) -> Value {
    // The collector expands `$` in everything that it reads; doubled, it is one.
    let literal = |statements: Vec<String>| statements.into_iter().map(|s| s.replace('$', "$$")).collect::<Vec<_>>();
    json!({
        "error_mode": "propagate",
        "trace_statements": [
            { "context": "span", "statements": literal(rules.iter().flat_map(|r| r.span_statements()).collect()) },
            { "context": "spanevent", "statements": literal(rules.iter().flat_map(|r| r.event_statements()).collect()) },
        ],
    })
}

/// `docs/redaction.md`.
pub fn reference() -> String {
    let mut text = String::from(
        "<!-- Generated from src/plan/collector/redaction.rs by `make generate`: do not edit. -->\n\n\
         # Redaction\n\n\
         Spans of kube-apiserver and etcd hold names of objects, keys, and parts of requests. The collector takes them out on the node, before a span goes \
         anywhere: to your exporters, or to the operator's own trace store. What says which webhook, which verb, which resource and which namespace \
         was slow stays.\n\n\
         | `spec.collector.redactionRules` | where | what becomes of it | before | after |\n| --- | --- | --- | --- | --- |\n",
    );
    text.extend(Rule::iter().map(|rule| {
        let [place, change, before, after] = rule.row();
        format!("| `{}` | {place} | {change} | {before} | {after} |\n", rule.field())
    }));
    text.push_str(
        "\nAll rules are on. `redaction: None` switches every rule off, a single one is switched off by its field; both restart the collectors only:\n\n\
         ```yaml\nspec:\n  collector:\n    redactionRules: {objectNames: Disabled}\n```\n\n\
         What stays: `audit-id`, `verb`, `resource`, `subresource`, `namespace`, `api-group`, `api-version`, `user-agent`, `client` (an IP address), `webhook`, \
         `configuration`, `operation`, sizes, counts, and times. Names of namespaces are not taken out.\n\n\
         A span is changed or it does not leave: where a statement fails, the collector refuses the spans instead of passing them on as they were.\n\n\
         Rules know the attributes of the versions that this release supports: see [versions.md](versions.md).\n",
    );
    text
}
