use super::*;

fn span(component: &str, kind: Kind, name: &str, attributes: &[(&str, &str)]) -> Span {
    Span {
        component: component.to_owned(),
        kind,
        name: name.to_owned(),
        attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Span::default()
    }
}

#[test]
fn requests_are_called_by_verb_and_resource() {
    for (name, short) in [
        ("GET /api/v1/nodes", "GET nodes"),
        ("POST /api/v1/namespaces/{:namespace}/pods", "POST pods"),
        ("GET /api/v1/namespaces/{:namespace}/pods/{:name}/log", "GET pods/log"),
        ("GET /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}", "GET deployments"),
        ("PATCH /apis/example.com/v1/widgets/{:name}/status", "PATCH widgets/status"),
        // As API servers name a namespace's own, and as the redaction of a path does.
        ("GET /api/v1/namespaces/{:namespace}/namespaces/{:name}", "GET namespaces"),
        ("GET /api/v1/namespaces/{:name}", "GET namespaces"),
        ("PUT /api/v1/namespaces/{:name}/finalize", "PUT namespaces/finalize"),
        ("GET /api/v1/namespaces", "GET namespaces"),
        ("GET /readyz", "GET /readyz"),
        ("GET /api", "GET /api"),
        ("GET /apis/apps", "GET /apis/apps"),
        ("GET /", "GET /"),
        ("GET //////", "GET //////"),
        ("GET", "GET"),
    ] {
        assert_eq!(short_of(Kind::Server, name, &[]), short);
    }
}

fn short_of(kind: Kind, name: &str, attributes: &[(&str, &str)]) -> String {
    short(&span("apiserver", kind, name, attributes))
}

#[test]
fn a_request_whose_name_has_no_path_has_it_from_its_attributes() {
    let probe = [("http.request.method", "GET"), ("http.target", "/readyz?verbose"), ("url.path", "/readyz")];
    assert_eq!(short_of(Kind::Server, "GET", &probe), "GET /readyz");
    let until_1_30 = [("http.method", "POST"), ("http.target", "/api/v1/namespaces/{:namespace}/pods")];
    assert_eq!(short_of(Kind::Server, "KubernetesAPI", &until_1_30), "POST pods");
}

/// Component, kind, name and attributes of a span, and what it is called.
type Row = (&'static str, Kind, &'static str, &'static [(&'static str, &'static str)], &'static str);

#[test]
fn spans_of_kube_apiserver_and_etcd_are_called_by_what_they_do() {
    use Kind::{Client, Internal, Server};
    let rows: &[Row] = &[
        ("apiserver", Internal, "Create", &[("resource", "pods"), ("subresource", "")], "Create pods"),
        ("apiserver", Internal, "Get", &[("resource", "pods"), ("subresource", "log")], "Get pods/log"),
        ("apiserver", Internal, "Create", &[], "Create"),
        ("apiserver", Internal, "Call mutating webhook", &[("webhook", "policy.shop.io")], "Mutating webhook policy.shop.io"),
        ("apiserver", Internal, "Call validating webhook", &[("webhook", "images.shop.io")], "Validating webhook images.shop.io"),
        ("apiserver", Internal, "Call mutating webhook", &[], "Call mutating webhook"),
        ("apiserver", Client, "HTTP POST", &[("server.address", "10.96.0.7"), ("server.port", "443")], "HTTP POST 10.96.0.7:443"),
        (
            "apiserver",
            Client,
            "HTTP POST",
            &[("http.url", "https://policy.shop.svc:443/mutate?timeout=10s")],
            "HTTP POST policy.shop.svc:443",
        ),
        ("apiserver", Client, "HTTP GET", &[], "HTTP GET"),
        ("apiserver", Client, "etcdserverpb.KV/Txn", &[], "etcd Txn"),
        ("etcd", Server, "etcdserverpb.KV/Txn", &[], "KV/Txn"),
        ("etcd", Internal, "range", &[], "range"),
        ("apiserver", Internal, "GuaranteedUpdate etcd3", &[("resource", "nodes")], "GuaranteedUpdate etcd3 nodes"),
        ("apiserver", Internal, "List(recursive=true) etcd3", &[], "List etcd3"),
        ("apiserver", Internal, "cacher.GetList", &[("type", "pods")], "cacher.GetList pods"),
        ("apiserver", Internal, "priorityandfairness", &[], "priority and fairness"),
        ("apiserver", Internal, "constrainedimpersonation", &[], "impersonation"),
        ("apiserver", Internal, "SerializeObject", &[], "SerializeObject"),
        ("policy", Server, "/mutate", &[], "/mutate"),
    ];
    for (component, kind, name, attributes, called) in rows {
        assert_eq!(short(&span(component, *kind, name, attributes)), *called, "{name}");
    }
}

#[test]
fn a_call_is_told_under_the_name_of_what_it_is_made_for() {
    use Kind::{Client, Internal, Server};
    for (component, kind, name, told) in [
        ("apiserver", Client, "HTTP POST", None),
        ("etcd", Internal, "txn", None),
        ("etcd", Server, "etcdserverpb.KV/Txn", Some("etcd Txn")),
        ("apiserver", Client, "etcdserverpb.KV/Txn", Some("etcd Txn")),
        ("apiserver", Internal, "SerializeObject", Some("SerializeObject")),
    ] {
        assert_eq!(step(&span(component, kind, name, &[])).as_deref(), told, "{component} {name}");
    }
    let webhook = span("apiserver", Internal, "Call mutating webhook", &[("webhook", "policy.shop.io")]);
    assert_eq!(step(&webhook).as_deref(), Some("webhook policy.shop.io"));
}

#[test]
fn the_namespace_that_redaction_left_is_put_back_into_the_path() {
    let request = span("apiserver", Kind::Server, "POST /api/v1/namespaces/{:namespace}/pods", &[]);
    let create = span("apiserver", Kind::Internal, "Create", &[("resource", "pods"), ("namespace", "shop")]);
    assert_eq!(request_line(&request, std::iter::once(&create)).as_deref(), Some("POST /api/v1/namespaces/shop/pods"));
    assert_eq!(request_line(&request, std::iter::empty()).as_deref(), Some("POST /api/v1/namespaces/{:namespace}/pods"));
    assert_eq!(request_line(&create, std::iter::empty()), None);
}
