//! Under whose name a request is sent, and what is made so that it is traced: pure.
//!
//! kube-apiserver takes a caller's trace context for its own only where the caller, as it authenticates, is in a trusted group
//! ([`crate::component::spans::is_trusted`]); whom the caller impersonates is looked at later. So the request is sent by a short-lived user in that
//! group, who may impersonate exactly this person, and does: what is allowed is decided for the person.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::config::AuthInfo;

use crate::component::spans::{adopts_trace_context, is_trusted};

/// On everything that is made for a request; its value is the name of all three objects, which is also the certificate's user.
pub(super) const LABEL: &str = "clustertracing.dev/request";
/// What the names begin with; 16 random hexadecimal digits follow.
pub(super) const NAME_PREFIX: &str = "clustertracing-request-";
/// What is older was left behind: the certificate is good for ten minutes.
pub(super) const LEFT_BEHIND_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// Users of this name are service accounts: they are impersonated by a right on the account within its namespace, which a `ClusterRole` would
/// give for the same name in every namespace.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Whom a request is made for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Person {
    /// The user's name.
    pub(super) user: String,
    /// The user's UID, where there is one.
    pub(super) uid: Option<String>,
    /// The user's groups.
    pub(super) groups: Vec<String>,
    /// What else the API server knows of the user.
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl Person {
    /// As the API server answers to a `SelfSubjectReview`.
    pub(super) fn reviewed(user: UserInfo) -> Self {
        Self {
            user: user.username.unwrap_or_default(),
            uid: user.uid.filter(|uid| !uid.is_empty()),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }
    }

    /// Whom the kubeconfig has its user impersonate (`as`), if anybody.
    pub(super) fn impersonated(auth_info: &AuthInfo) -> Option<Self> {
        Some(Self {
            user: auth_info.impersonate.clone()?,
            uid: auth_info.impersonate_uid.clone(),
            groups: auth_info.impersonate_groups.clone().unwrap_or_default(),
            extra: auth_info.impersonate_user_extra.clone().unwrap_or_default().into_iter().collect(),
        })
    }
}

/// How requests come to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The person's own credentials are trusted.
    Trusted,
    /// By a certificate that is made for them.
    Certificate,
    /// With the person's own credentials, as chance has it.
    Chance(Why),
}

/// Why a request is sent with the person's own credentials, though their trace context is not adopted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    /// kube-apiserver is too old.
    #[error("kube-apiserver {0} begins a trace of its own for everybody: from 1.33 on it takes that of a trusted caller")]
    Version(String),
    /// A service account.
    #[error("your credentials are those of a service account, which nobody can be allowed to impersonate in one namespace only")]
    ServiceAccount,
    /// The person may not do something that it takes.
    #[error("you may not {0}")]
    Forbidden(String),
    /// Something else went wrong.
    #[error("{0}")]
    Failed(String),
    /// A name that no header can carry.
    #[error("your user name or a group has characters that no HTTP header can carry")]
    Unwritable,
}

/// Which way there is. `version`: kube-apiserver's. `impersonates`: the kubeconfig has its user impersonate `person`.
pub(super) fn way(version: &str, person: &Person, impersonates: bool) -> Way {
    if adopts_trace_context(version) != Some(true) {
        return Way::Chance(Why::Version(version.to_owned()));
    }
    // The groups of whom one impersonates do not count.
    if !impersonates && is_trusted(&person.groups) {
        return Way::Trusted;
    }
    if person.user.starts_with(SERVICE_ACCOUNT) {
        return Way::Chance(Why::ServiceAccount);
    }
    Way::Certificate
}

/// The headers by which a caller impersonates `person`
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>).
pub(super) fn impersonation(person: &Person) -> Result<Vec<(HeaderName, HeaderValue)>, Why> {
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Why::Unwritable);
    let mut headers = vec![(HeaderName::from_static("impersonate-user"), value(&person.user)?)];
    if let Some(uid) = &person.uid {
        headers.push((HeaderName::from_static("impersonate-uid"), value(uid)?));
    }
    for group in &person.groups {
        headers.push((HeaderName::from_static("impersonate-group"), value(group)?));
    }
    for (key, values) in &person.extra {
        let name = HeaderName::from_bytes(format!("impersonate-extra-{}", escaped(key)).as_bytes()).map_err(|_| Why::Unwritable)?;
        for text in values {
            headers.push((name.clone(), value(text)?));
        }
    }
    Ok(headers)
}

/// A key as a part of a header's name: what is not allowed there, and the percent sign, as `%` and two digits.
fn escaped(key: &str) -> String {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes().map(|byte| if is_allowed(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// The right to impersonate exactly this person.
pub(super) fn role(name: &str, person: &Person) -> ClusterRole {
    let to_impersonate = |group: &str, resource: String, names: Vec<String>| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource]),
        resource_names: Some(names),
        verbs: vec!["impersonate".to_owned()],
        ..PolicyRule::default()
    };
    let mut rules = vec![
        to_impersonate("", "users".to_owned(), vec![person.user.clone()]),
        to_impersonate("", "groups".to_owned(), person.groups.clone()),
    ];
    let uid = person.uid.iter().cloned().collect();
    rules.push(to_impersonate("authentication.k8s.io", "uids".to_owned(), uid));
    let extra = person.extra.iter();
    rules.extend(extra.map(|(key, values)| to_impersonate("authentication.k8s.io", format!("userextras/{key}"), values.clone())));
    // A rule without names would allow every name.
    rules.retain(|rule| rule.resource_names.as_ref().is_some_and(|names| !names.is_empty()));
    ClusterRole { metadata: metadata(name), rules: Some(rules), ..ClusterRole::default() }
}

/// Gives that right to the certificate's user.
pub(super) fn binding(name: &str) -> ClusterRoleBinding {
    let group = || "rbac.authorization.k8s.io".to_owned();
    ClusterRoleBinding {
        metadata: metadata(name),
        role_ref: RoleRef { api_group: Some(group()), kind: "ClusterRole".to_owned(), name: name.to_owned() },
        subjects: Some(vec![Subject { api_group: Some(group()), kind: "User".to_owned(), name: name.to_owned(), namespace: None }]),
    }
}

/// The labels of everything that is made under this name.
pub(super) fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_owned(), name.to_owned())])
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels(name)), ..ObjectMeta::default() }
}

/// Whether an object with our label was left behind by a run that was killed.
pub(super) fn is_left_behind(metadata: &ObjectMeta, now: Timestamp) -> bool {
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    metadata.name.as_deref().is_some_and(|name| name.starts_with(NAME_PREFIX))
        && created.is_some_and(|created| now.duration_since(created) > LEFT_BEHIND_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Person {
        Person {
            user: "alice".to_owned(),
            uid: None,
            groups: vec!["kubeadm:cluster-admins".to_owned(), "system:authenticated".to_owned()],
            extra: BTreeMap::from([("example.org/id".to_owned(), vec!["X509SHA256=1f".to_owned()])]),
        }
    }

    fn of_groups(groups: &[&str]) -> Person {
        Person { groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..alice() }
    }

    #[test]
    fn a_certificate_is_made_only_where_it_is_needed_and_honoured() {
        let account = Person { user: "system:serviceaccount:shop:robot".to_owned(), ..alice() };
        for (version, person, impersonates, expected) in [
            ("v1.36.3", alice(), false, Way::Certificate),
            ("v1.33.0", alice(), true, Way::Certificate),
            ("v1.32.9", alice(), false, Way::Chance(Why::Version("v1.32.9".to_owned()))),
            ("unknown", alice(), false, Way::Chance(Why::Version("unknown".to_owned()))),
            ("v1.36.3", of_groups(&["system:masters"]), false, Way::Trusted),
            ("v1.36.3", of_groups(&["a", "system:monitoring"]), false, Way::Trusted),
            ("v1.36.3", of_groups(&["system:masters"]), true, Way::Certificate),
            ("v1.32.9", of_groups(&["system:masters"]), false, Way::Chance(Why::Version("v1.32.9".to_owned()))),
            ("v1.36.3", account, false, Way::Chance(Why::ServiceAccount)),
        ] {
            assert_eq!(way(version, &person, impersonates), expected, "{version} {person:?} {impersonates}");
        }
    }

    #[test]
    fn exactly_this_person_may_be_impersonated() {
        let rules = |person: &Person| {
            let rules = role("r", person).rules.unwrap_or_default().into_iter();
            let line = |rule: PolicyRule| {
                let words = |words: Option<Vec<String>>| words.unwrap_or_default().join(",");
                format!("{:?} {}: {} {}", words(rule.api_groups), words(rule.resources), rule.verbs.join(","), words(rule.resource_names))
            };
            rules.map(line).collect::<Vec<_>>()
        };
        let extra = r#""authentication.k8s.io" userextras/example.org/id: impersonate X509SHA256=1f"#;
        assert_eq!(
            rules(&alice()),
            [r#""" users: impersonate alice"#, r#""" groups: impersonate kubeadm:cluster-admins,system:authenticated"#, extra]
        );
        // No names would mean all of them.
        let bob =
            Person { user: "bob".to_owned(), uid: Some("7".to_owned()), extra: [("x".to_owned(), Vec::new())].into(), ..Person::default() };
        assert_eq!(rules(&bob), [r#""" users: impersonate bob"#, r#""authentication.k8s.io" uids: impersonate 7"#]);
        let binding = binding("clustertracing-request-1");
        assert_eq!(
            (binding.role_ref.name.as_str(), binding.subjects.unwrap()[0].name.as_str()),
            ("clustertracing-request-1", "clustertracing-request-1")
        );
    }

    #[test]
    fn headers_carry_the_whole_person() {
        let text = |person: &Person| {
            let headers = impersonation(person).unwrap().into_iter();
            headers.map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect::<Vec<_>>()
        };
        assert_eq!(
            text(&Person { uid: Some("7".to_owned()), ..alice() }),
            [
                "impersonate-user: alice",
                "impersonate-uid: 7",
                "impersonate-group: kubeadm:cluster-admins",
                "impersonate-group: system:authenticated",
                "impersonate-extra-example.org%2fid: X509SHA256=1f",
            ]
        );
        assert_eq!(text(&Person { user: "zoë".to_owned(), ..Person::default() }), ["impersonate-user: zoë"]);
        assert_eq!(impersonation(&Person { user: "a\nb".to_owned(), ..Person::default() }), Err(Why::Unwritable));
    }

    #[test]
    fn only_what_is_old_and_ours_is_left_behind() {
        let now: Timestamp = "2026-11-22T06:00:00Z".parse().unwrap();
        let object = |name: &str, created: &str| ObjectMeta {
            name: Some(name.to_owned()),
            creation_timestamp: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created.parse().unwrap())),
            ..ObjectMeta::default()
        };
        for (object, expected) in [
            (object("clustertracing-request-1", "2026-11-22T05:44:59Z"), true),
            (object("clustertracing-request-1", "2026-11-22T05:45:01Z"), false),
            (object("cluster-admin", "2026-11-21T00:00:00Z"), false),
            (ObjectMeta { creation_timestamp: None, ..object("clustertracing-request-1", "2026-11-21T00:00:00Z") }, false),
        ] {
            assert_eq!(is_left_behind(&object, now), expected, "{object:?}");
        }
    }
}
