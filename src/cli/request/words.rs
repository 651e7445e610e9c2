//! What is said of a request, and which one is drawn: pure.

use std::time::Duration;

use super::forward::is_discovery;
use super::identity::{LIFETIME, Left};
use super::proxy::Sent;
use super::rights::{LABEL, LEFT_BEHIND_AFTER, NAME_PREFIX, Why};
use crate::cli::trace::draw;
use crate::component::spans::TRUSTED_GROUP;
use crate::runtime::client_certificate::SIGNER;

/// Which requests are drawn: all of them, or the last one that does what kubectl was asked for; of requests that only ask what the API server
/// serves, the last one.
pub(super) fn chosen(sent: &[Sent], all: bool) -> Vec<&Sent> {
    let answered: Vec<&Sent> = sent.iter().filter(|sent| sent.answer.is_some()).collect();
    if all {
        return answered;
    }
    let last = answered.iter().rfind(|sent| !is_discovery(&sent.path)).or(answered.last());
    last.copied().into_iter().collect()
}

/// One line for each request that is not drawn; those that only ask what the API server serves share one.
pub(super) fn others(sent: &[Sent], drawn: &[&Sent]) -> Vec<String> {
    let others = sent.iter().filter(|sent| !drawn.contains(sent));
    let (discovery, others): (Vec<&Sent>, Vec<&Sent>) = others.partition(|sent| is_discovery(&sent.path));
    let mut lines: Vec<String> = others.into_iter().map(line).collect();
    if let [one] = discovery.as_slice() {
        lines.push(format!("{} (discovery)", line(one)));
    } else if !discovery.is_empty() {
        let took = discovery.iter().filter_map(|sent| sent.answer.as_ref()).map(|answer| answer.took).sum();
        lines.push(format!("not drawn: {} requests of discovery, {} together: --all draws them", discovery.len(), duration(took)));
    }
    lines
}

fn line(sent: &Sent) -> String {
    let answer = sent.answer.as_ref().map_or("no answer".to_owned(), |answer| format!("{}, {}", answer.status, duration(answer.took)));
    // The trace of any other has an id of the API server's own.
    let trace = if sent.is_trusted { format!(", trace {}", sent.context.trace) } else { String::new() };
    format!("not drawn: {} {}: {answer}{trace}", sent.method, sent.path)
}

fn duration(duration: Duration) -> String {
    draw::duration(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), "µs")
}

/// Before kubectl runs.
pub(super) fn by_chance(why: &Why) -> String {
    format!(
        "the request goes with your own credentials, and is traced if the sampling rate has it so: {why} (--explain tells what it takes)"
    )
}

/// Where no trace came of a request.
pub(super) fn none_came(sent: &Sent) -> String {
    if sent.is_trusted {
        return format!("no span of trace {} came within 10 s: kubectl tracing status tells whether spans flow", sent.context.trace);
    }
    format!(
        "no trace of {} {} came within 10 s: it was not among those that are sampled. Have one who may approve certificates run it \
         (kubectl tracing request --explain), or raise the rate for a while (kubectl tracing sample 100% --for 2m), or try again",
        sent.method, sent.path
    )
}

/// What could not be taken away.
pub(super) fn left(left: &Left) -> String {
    format!("left behind: {}: {}; kubectl delete {} removes it", left.object, left.why, left.object)
}

/// `--explain`.
pub(super) fn explained(operator_namespace: &str) -> String {
    let (minutes, left_behind) = (LIFETIME.as_secs() / 60, LEFT_BEHIND_AFTER.as_mins());
    format!(
        "\
kubectl tracing request runs kubectl through a proxy on 127.0.0.1, which sends its requests to the
API server, each under a trace of its own, and then draws the trace from the operator's trace store.

Why something has to be made
  kube-apiserver follows the trace that a request asks for only if the caller is in group
  {TRUSTED_GROUP} or system:masters, from 1.33 on. If you are, nothing is made.

What is made, under one name ({NAME_PREFIX} and 16 random digits)
  CertificateSigningRequest  for a client certificate of a user of that name, in group
                             {TRUSTED_GROUP}, good for {minutes} minutes; deleted once it is signed.
                             Its key stays in the memory of this program.
  ClusterRole                the right to impersonate exactly you: your user and your groups, and
                             your UID and extra fields where you have any.
  ClusterRoleBinding         gives that right to that user.
  kubectl's requests are sent with the certificate and impersonate you. So you may do what you may
  do without it, and admission webhooks see you. The audit log names both users.

For how long
  Until kubectl has ended, well or not, also by Ctrl-C. If this program is killed meanwhile, the two
  other objects stay; the certificate ends by itself, and a run that comes {left_behind} minutes later or more
  removes them. They are found by
    kubectl get certificatesigningrequests,clusterroles,clusterrolebindings -l {LABEL}

Which rights it takes (cluster-admin has them all)
  certificatesigningrequests                   create, get, delete
  certificatesigningrequests/approval          patch
  signers {SIGNER}  approve
  clusterroles, clusterrolebindings            create, delete; list, to remove what was left behind
  users, groups, uids, userextras              impersonate, for yourself: nobody can give more
  services/proxy in {operator_namespace}  get (Role clustertracing-traces-reader)
  Without one of them but the last, and before 1.33, your requests go with your own credentials, and
  are traced if the sampling rate has it so. Nothing is left of what was made by then.
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::forward::Context;
    use super::super::proxy::Answer;
    use super::*;
    use std::time::Instant;

    fn sent(method: &str, path: &str, status: Option<u16>, at: Instant) -> Sent {
        let answer = status.map(|status| Answer { status, audit_id: None, took: Duration::from_millis(12) });
        let context = Context::new([1; 24]).unwrap();
        Sent { method: method.to_owned(), path: path.to_owned(), context, is_trusted: true, at, answer }
    }

    fn paths<'a>(sent: &[&'a Sent]) -> Vec<&'a str> {
        sent.iter().map(|sent| sent.path.as_str()).collect()
    }

    #[test]
    fn the_last_request_that_does_what_was_asked_is_drawn() {
        let now = Instant::now();
        let get = |path: &str, status| sent("GET", path, status, now);
        let (api, pods, nodes) = (get("/api", Some(200)), get("/api/v1/pods", Some(200)), get("/api/v1/nodes", Some(403)));
        let unanswered = get("/api/v1/events", None);
        for (sent, all, expected) in [
            (vec![], false, vec![]),
            (vec![api.clone(), pods.clone(), nodes.clone()], false, vec!["/api/v1/nodes"]),
            (vec![pods.clone(), api.clone()], false, vec!["/api/v1/pods"]),
            (vec![pods.clone(), unanswered.clone()], false, vec!["/api/v1/pods"]),
            (vec![api.clone()], false, vec!["/api"]),
            (vec![api.clone(), pods.clone(), unanswered], true, vec!["/api", "/api/v1/pods"]),
        ] {
            assert_eq!(paths(&chosen(&sent, all)), expected);
        }
    }

    #[test]
    fn the_others_are_told_in_one_line_each() {
        let now = Instant::now();
        let all = [
            sent("GET", "/api", Some(200), now),
            sent("GET", "/apis", Some(200), now),
            sent("POST", "/api/v1/namespaces/shop/pods", Some(201), now),
            Sent { is_trusted: false, ..sent("GET", "/api/v1/nodes", None, now) },
            sent("GET", "/api/v1/pods", Some(200), now),
        ];
        assert_eq!(
            others(&all, &chosen(&all, false)),
            [
                "not drawn: POST /api/v1/namespaces/shop/pods: 201, 12 ms, trace 01010101010101010101010101010101",
                "not drawn: GET /api/v1/nodes: no answer",
                "not drawn: 2 requests of discovery, 24 ms together: --all draws them",
            ]
        );
    }
}
