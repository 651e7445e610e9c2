//! One control-plane node: every change takes the only API server away, with the operator's own requests.

use crate::support::availability::Watch;
use crate::support::clients::Access;
use crate::support::cluster::{Cluster, Shape};
use crate::support::files;
use crate::support::jaeger::Jaeger;
use crate::support::kubeadm;
use crate::support::operator::{Operator, at_rate, sample};
use crate::support::process;
use crate::support::step::step;
use crate::{bad_change, break_glass, checks, dead_collector, drift, gateway, plugin, restarts, upgrade};

/// With `to`, the traced cluster is upgraded by kubeadm.
pub(crate) async fn run(shape: Shape, to: Option<Shape>) {
    let versions = |shape: Shape| format!("{} + etcd {}", shape.kubernetes, shape.etcd);
    let versions = [Some(shape), to].into_iter().flatten().map(versions).collect::<Vec<_>>().join(" → ");
    let name = |text: &str| format!("{versions}, 1 node: {text}");
    let mut cluster = step(&name("the cluster comes up and the operator is installed"), async || Cluster::up(shape)).await;
    let administrator = Access::administrator(&cluster).await;
    let super_administrator = Access::super_administrator(&cluster).await;
    let operator = Operator::new(administrator.client());
    let jaeger = Jaeger::new();
    let (before, configured) = (files::manifests(&cluster), kubeadm::configuration(&cluster));

    step(&name("apply is Ready, through the API server's own restart"), async || {
        operator.apply_until_ready(&sample()).await;
        checks::assert_traced(&cluster, 10_000);
    })
    .await;
    step(&name("spans of every instance arrive"), async || {
        checks::assert_spans_of_every_instance_arrive(&cluster, &administrator, &jaeger).await;
        checks::assert_one_request_is_one_trace(&cluster, &super_administrator, &jaeger).await;
    })
    .await;
    step(&name("another rate restarts kube-apiserver and leaves etcd running"), async || {
        let (api_servers, members) = (process::starts(&cluster, "kube-apiserver"), process::starts(&cluster, "etcd"));
        let watch = Watch::start(&cluster, &administrator);
        operator.apply_until_ready(&at_rate(250_000)).await;
        watch.stop().await;
        checks::assert_traced(&cluster, 250_000);
        assert_ne!(process::starts(&cluster, "kube-apiserver"), api_servers);
        assert_eq!(process::starts(&cluster, "etcd"), members);
    })
    .await;
    if shape.kubernetes.starts_with("1.34") {
        step(&name("kubectl tracing changes the rate for a while, and takes a change back"), async || {
            plugin::changes_the_rate(&cluster, &operator).await;
        })
        .await;
        step(&name("a gateway comes and goes, and restarts no component"), async || {
            gateway::comes_and_goes(&cluster, &administrator, &operator, &jaeger, 10_000).await;
        })
        .await;
        step(&name("a manifest that a person has changed is healed once, and not fought over"), async || {
            drift::run(&cluster, &administrator, &operator, 260_000).await;
        })
        .await;
        step(&name("a dead collector keeps no API server from ending"), async || {
            dead_collector::costs_nothing(&cluster, &administrator, &operator).await;
        })
        .await;
        step(&name("restored by hand without an API server, a node stays so"), async || {
            break_glass::restore(&cluster, &operator, &before).await;
        })
        .await;
    }
    if let Some(to) = to {
        upgrade::run(&mut cluster, to, 250_000, &administrator, &jaeger, name).await;
        step(&name("an API server that ends again and again does not make the controller deaf"), async || {
            restarts::survive(&cluster, &administrator, &operator, &at_rate(250_000)).await;
        })
        .await;
    }
    step(&name("delete gives back the original bytes, and leaves nothing"), async || {
        let watch = Watch::start(&cluster, &administrator);
        operator.delete().await;
        watch.stop().await;
        let (before, configured) = match to {
            None => (before, configured),
            Some(to) => upgrade::untraced(&cluster, shape, to, &configured),
        };
        assert_eq!(kubeadm::configuration(&cluster), configured);
        assert_eq!(files::manifests(&cluster), before);
        files::assert_nothing_left_over(&cluster).await;
        checks::assert_untraced(&cluster);
    })
    .await;
    if to.is_some() {
        bad_change::run(&cluster, &administrator, &operator, name).await;
    }
}
