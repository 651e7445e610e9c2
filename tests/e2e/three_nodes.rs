//! Three control-plane nodes behind a load balancer: the whole job, in the order in which an administrator meets it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use clustertracing::api::node_tracing::Step;
use clustertracing::api::{NodeTracing, Reason};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Resource};
use serde_json::{Value, json};

use crate::checks;
use crate::collector_mistakes;
use crate::flow;
use crate::gates;
use crate::mistakes::Mistake;
use crate::own_traces;
use crate::plugin;
use crate::redaction;
use crate::rotation;
use crate::support::availability::Watch;
use crate::support::clients::Access;
use crate::support::cluster::{Cluster, NAMESPACE, Shape, project};
use crate::support::files::{self, Digests};
use crate::support::jaeger::Jaeger;
use crate::support::operator::{Operator, at_rate, sample, switched_off};
use crate::support::process;
use crate::support::step::{note, rounds, step};
use crate::support::traceparent::Traceparent;
use crate::support::wait::{holds, until};
use crate::support::webhook::{self, Webhook};

pub(crate) async fn run(shape: Shape) {
    let cluster = step("3 nodes: the cluster comes up and the operator is installed", async || {
        Cluster::up_with(shape, |cluster| {
            own_traces::collect(cluster);
            own_traces::values()
        })
    })
    .await;
    let administrator = Access::administrator(&cluster).await;
    let mut scenario = Scenario {
        super_administrator: Access::super_administrator(&cluster).await,
        operator: Operator::new(administrator.client()),
        jaeger: Jaeger::new(),
        before: files::manifests(&cluster),
        administrator,
        cluster,
    };
    step("3 nodes: no grant while an etcd member is stopped", async || gates::hold(&scenario.cluster, &scenario.operator).await).await;
    step("3 nodes: apply traces all API servers and etcd members, one node at a time", async || scenario.apply().await).await;
    step("3 nodes: kubectl explains the fields and shows the columns", async || scenario.kubectl_explains_and_shows()).await;
    step("3 nodes: spans of every instance arrive", async || scenario.spans_arrive().await).await;
    step("3 nodes: a rotated certificate restarts nothing", async || scenario.certificate_rotates().await).await;
    step("3 nodes: no name leaves its node", async || scenario.names_stay().await).await;
    step("3 nodes: a request through a mutating webhook is one trace", async || scenario.webhook_is_in_the_trace().await).await;
    step("3 nodes: kubectl tracing shows a good cluster", async || plugin::shows_a_good_cluster(&scenario.cluster).await).await;
    step("3 nodes: kubectl tracing names a slow webhook", async || scenario.slow_webhook_is_named().await).await;
    step("3 nodes: another rate restarts all API servers and no etcd member", async || scenario.rate_changes().await).await;
    step("3 nodes: a collector that would not work replaces none that does", async || scenario.collector_mistakes_replace_nothing().await)
        .await;
    step("3 nodes: where nothing changes, nothing is written", async || scenario.idle_writes_nothing().await).await;
    step("3 nodes: at any rate it is proved that spans flow", async || {
        flow::is_proved_at_any_rate(&scenario.cluster, &scenario.operator).await;
    })
    .await;
    step("3 nodes: where spans end is told within a minute", async || {
        flow::breaks_are_told_and_end(&scenario.cluster, &scenario.operator).await;
    })
    .await;
    step("3 nodes: kubectl tracing names a slow etcd member", async || scenario.slow_member_is_named().await).await;
    step("3 nodes: killed at any moment, the rollout ends as it should", async || scenario.kills_are_survived().await).await;
    step("3 nodes: delete gives back the original bytes, and leaves nothing", async || scenario.delete_restores().await).await;
    step("3 nodes: what cannot be edited stops a second apply, until it is corrected", async || scenario.mistakes_stop_everything().await)
        .await;
    step("3 nodes: Disabled gives back the original bytes", async || scenario.disabled_restores().await).await;
}

struct Scenario {
    cluster: Cluster,
    administrator: Access,
    super_administrator: Access,
    operator: Operator,
    jaeger: Jaeger,
    before: Digests,
}

impl Scenario {
    async fn apply(&self) {
        let starts = self.starts();
        let watch = Watch::start(&self.cluster, &self.administrator);
        let tracing = self.operator.apply_until_ready(&sample()).await;
        let findings = watch.stop().await;
        checks::assert_traced(&self.cluster, 10_000);
        self.assert_all_restarted(&starts);
        findings.assert_one_node_at_a_time();
        findings.assert_no_request_failed_twice();
        self.assert_started_one_node_after_the_other();
        let status = tracing.status.expect("a Ready ClusterTracing has a status");
        assert_eq!((status.sampling_rate_per_million, status.nodes_ready.as_deref()), (Some(10_000), Some("3/3")));
    }

    async fn spans_arrive(&self) {
        checks::assert_spans_of_every_instance_arrive(&self.cluster, &self.administrator, &self.jaeger).await;
        let trace = checks::assert_one_request_is_one_trace(&self.cluster, &self.super_administrator, &self.jaeger).await;
        note(&format!("list nodes:\n{}", trace.tree()));
    }

    async fn certificate_rotates(&mut self) {
        rotation::needs_no_restart(&mut self.cluster, &self.administrator, &self.jaeger).await;
    }

    async fn names_stay(&self) {
        redaction::keeps_names_on_the_node(&self.cluster, &self.super_administrator, &self.operator, &self.jaeger).await;
    }

    async fn webhook_is_in_the_trace(&self) {
        let client = self.super_administrator.at("cp1").client();
        let identities = checks::api_server_identities(client.clone()).await;
        let webhook = Webhook::start(&self.cluster);
        webhook.register(client.clone()).await;
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "traced", "namespace": "default", "labels": {webhook::LABEL.0: webhook::LABEL.1}},
            "spec": {"containers": [{"name": "sleep", "image": "testbed/busybox:dev", "command": ["/bin/busybox", "sleep", "1"]}]},
        });
        // The API servers learn of the webhook by a watch: until then a Pod is made without it, in a trace without it.
        let parent = until("a Pod goes through the webhook", Duration::from_mins(1), async || {
            let parent = Traceparent::new();
            let request = http::Request::post("/api/v1/namespaces/default/pods").header("content-type", "application/json");
            let request = request.body(serde_json::to_vec(&pod).expect("a constant object")).expect("a constant request");
            let made: Pod = client.request(parent.of(request)).await.map_err(|error| error.to_string())?;
            let pods: Api<Pod> = Api::default_namespaced(client.clone());
            let at_once = DeleteParams::default().grace_period(0);
            pods.delete("traced", &at_once).await.map_err(|error| error.to_string())?;
            made.metadata.annotations.map(|_| parent).ok_or_else(|| "the Pod has not the webhook's annotation".to_owned())
        })
        .await;
        let api_server = identities.get("cp1").map(String::as_str).expect("cp1 has an API server");
        let expected = [
            ("apiserver", api_server, "POST /api/v1/namespaces"),
            ("apiserver", api_server, "Call mutating webhook"),
            (webhook::SERVICE, "", "mutate pods"),
            // the webhook's own request, in the same trace: from 1.33 on
            ("apiserver", api_server, "GET /api/v1/namespaces"),
            ("etcd", "cp1", "etcdserverpb.KV/Txn"),
        ];
        let trace = checks::until_trace(&self.jaeger, &parent, &expected).await;
        note(&format!("create a Pod:\n{}", trace.tree()));
        webhook.remove(&self.cluster, client).await;
    }

    async fn slow_webhook_is_named(&self) {
        plugin::names_a_slow_webhook(&self.cluster, &self.super_administrator).await;
    }

    async fn slow_member_is_named(&self) {
        plugin::names_a_slow_member(&self.cluster, &self.super_administrator).await;
    }

    async fn rate_changes(&self) {
        let begin = SystemTime::now();
        let (api_servers, members) = (process::starts(&self.cluster, "kube-apiserver"), process::starts(&self.cluster, "etcd"));
        let watch = Watch::start(&self.cluster, &self.administrator);
        let tracing = self.operator.apply_until_ready(&at_rate(250_000)).await;
        let findings = watch.stop().await;
        checks::assert_traced(&self.cluster, 250_000);
        for (node, start) in process::starts(&self.cluster, "kube-apiserver") {
            assert_ne!(start, api_servers[&node], "{node}'s API server still has its old process");
        }
        assert_eq!(process::starts(&self.cluster, "etcd"), members);
        findings.assert_one_node_at_a_time();
        findings.assert_no_request_failed_twice();
        assert_eq!(tracing.status.and_then(|status| status.sampling_rate_per_million), Some(250_000));
        own_traces::arrive(&self.cluster, &self.jaeger, begin).await;
    }

    async fn collector_mistakes_replace_nothing(&self) {
        collector_mistakes::replace_nothing(&self.cluster, &self.operator).await;
    }

    async fn idle_writes_nothing(&self) {
        flow::settles(&self.operator).await;
        let (written, starts) = (self.versions().await.expect("the objects can be read"), self.starts());
        let mut last = None;
        for number in 0..100 {
            let touched = self.operator.touch(number).await.expect("the ClusterTracing can be annotated");
            assert_ne!(touched, last, "the annotation makes a new version");
            last = touched;
        }
        let idle = SystemTime::now();
        holds("100 annotations and a minute without a change", Duration::from_mins(1), async || {
            // A request may fail without a meaning here; what is asked is whether an object has a new version.
            until("the objects can be read", Duration::from_secs(20), async || {
                let tracing = self.operator.get().await?;
                Ok((tracing.metadata.resource_version == last, self.versions().await? == written, self.starts() == starts))
            })
            .await
        })
        .await;
        let tracing = self.operator.get().await.expect("the ClusterTracing can be read");
        assert_eq!(tracing.metadata.resource_version, last, "the controller wrote to a ClusterTracing that is as it should be");
        assert_eq!(self.versions().await.expect("the objects can be read"), written);
        assert_eq!(self.starts(), starts);
        own_traces::feed_on_nothing(&self.jaeger, idle).await;
    }

    async fn kills_are_survived(&self) {
        /// Time between the kills of a round; rounds begin them at different moments.
        const SPACING: Duration = Duration::from_secs(5);
        /// Kills, where nothing else is asked for.
        const KILLS: usize = 6;
        let kills = rounds(KILLS);
        let mut moments = BTreeMap::<String, usize>::new();
        for round in 0.. {
            let killed = moments.values().sum::<usize>();
            if killed >= kills {
                break;
            }
            assert!(round < kills, "too few kills fall into a rollout: {moments:?}");
            let mut rate = 100_000 + 10_000 * i32::try_from(round % 10).expect("a digit");
            self.renew_the_operators_pods().await;
            self.operator.apply(&at_rate(rate)).await;
            let mut next = tokio::time::Instant::now() + Duration::from_millis(500 + 1700 * (round as u64 % 4));
            for kill in 0..6 {
                tokio::time::sleep_until(next).await;
                next += SPACING;
                if self.operator.is_ready().await {
                    break;
                }
                let victim = Victim::ALL[(killed + kill) % Victim::ALL.len()];
                *moments.entry(self.kill_at_work(victim).await).or_default() += 1;
            }
            if let Err(message) = self.operator.until_recovered_or_backed_off().await {
                // Both who can go on were killed in the few seconds of one swap: the node is as it was, and a person's edit tries at once.
                assert!(message.contains(Reason::Interrupted.as_str()), "{message}");
                note(&message);
                rate += 1;
                self.operator.apply_until_ready(&at_rate(rate)).await;
            }
            checks::assert_traced(&self.cluster, rate);
            self.assert_no_file_came_or_went().await;
        }
        note(&format!("{} moments: {moments:?}", moments.values().sum::<usize>()));
    }

    /// The watchdog's manifest goes once the outcome is reported.
    async fn assert_no_file_came_or_went(&self) {
        let paths = |digests: &Digests| digests.keys().cloned().collect::<BTreeSet<_>>();
        until("the static-pod folders hold what they held", Duration::from_mins(1), async || {
            let found = paths(&files::manifests(&self.cluster));
            if found == paths(&self.before) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    async fn disabled_restores(&self) {
        self.operator.apply_until_ready(&switched_off()).await;
        self.assert_restored().await;
    }

    async fn delete_restores(&self) {
        let watch = Watch::start(&self.cluster, &self.administrator);
        self.operator.delete().await;
        let findings = watch.stop().await;
        self.assert_restored().await;
        findings.assert_one_node_at_a_time();
        findings.assert_no_request_failed_twice();
        until("only the agent's DaemonSet is left, and no NodeTracing asks for anything", Duration::from_mins(1), async || {
            let daemon_sets: Api<DaemonSet> = Api::namespaced(self.administrator.client(), NAMESPACE);
            let daemon_sets = daemon_sets.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let names: Vec<_> = daemon_sets.items.iter().filter_map(|found| found.metadata.name.as_deref()).collect();
            let nodes = self.operator.nodes().await?;
            if names == ["clustertracing-agent"] && nodes.is_empty() { Ok(()) } else { Err(format!("{names:?} and {nodes:?}")) }
        })
        .await;
    }

    async fn mistakes_stop_everything(&self) {
        let own_tracing = Mistake::own_tracing(&self.cluster, &self.administrator, "cp2").await;
        let alias = Mistake::alias(&self.cluster, "cp3");
        let (written, starts) = (files::manifests(&self.cluster), self.starts());

        self.operator.apply(&sample()).await;
        let message = self.operator.until_stalled(&[Reason::Conflict]).await;
        note(&format!("Conflict: {message}"));
        for part in ["cp2", "kube-apiserver.yaml", "--tracing-config-file", "remove"] {
            assert!(message.contains(part), "{part:?} is missing in {message:?}");
        }
        assert_eq!((files::manifests(&self.cluster), self.starts()), (written.clone(), starts), "no byte is written on any node");

        own_tracing.correct();
        let message = self.operator.until_stalled(&[Reason::UnsupportedManifest]).await;
        note(&format!("UnsupportedManifest: {message}"));
        for part in ["cp3", "etcd.yaml", "anchor"] {
            assert!(message.contains(part), "{part:?} is missing in {message:?}");
        }
        let untouched = |digests: Digests| digests.into_iter().filter(|(path, _)| !path.starts_with("cp2")).collect::<Digests>();
        assert_eq!(untouched(files::manifests(&self.cluster)), untouched(written), "no byte is written on any node");

        alias.correct();
        self.operator.until_recovered().await;
        checks::assert_traced(&self.cluster, 10_000);
    }

    fn kubectl_explains_and_shows(&self) {
        let crd = std::fs::read_to_string(project().join("crds/clustertracing.dev_clustertracings.yaml")).expect("the definition is there");
        let crd: Value = serde_yaml::from_str(&crd).expect("the definition is YAML");
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for (path, schema) in [
            ("", spec),
            (".etcd", &spec["properties"]["etcd"]),
            (".collector", &spec["properties"]["collector"]),
            (".rollout", &spec["properties"]["rollout"]),
        ] {
            let text = words(&self.cluster.kubectl(&["explain", &format!("clustertracing.spec{path}")]));
            for (field, schema) in schema["properties"].as_object().expect("it has fields") {
                assert!(text.contains(&format!(" {field} <")), "{field} is missing in {text}");
                let description = words(schema["description"].as_str().expect("it is described"));
                assert!(text.contains(&description), "{field}: {description:?} is missing in {text}");
            }
        }
        let table = self.cluster.kubectl(&["get", "ctrace"]);
        note(&format!("kubectl get ctrace\n{table}"));
        let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["NAME", "READY", "SAMPLING", "NODES", "SPANS", "AGE"]);
        assert_eq!(rows[1][..4], ["cluster", "True", "10000", "3/3"]);
    }

    /// Kills a program of the node that is being changed, or of any if there is none; says what the node was doing.
    async fn kill_at_work(&self, victim: Victim) -> String {
        let nodes = self.operator.nodes().await.unwrap_or_default();
        let step = |node: &NodeTracing| node.status.as_ref().map(|status| status.step).unwrap_or_default();
        let busy = nodes.iter().find(|node| step(node) != Step::Idle);
        let waiting = || {
            nodes.iter().find(|node| {
                node.status.as_ref().and_then(|s| s.current_revision.as_ref()) != node.spec.target.as_ref().map(|t| &t.revision)
            })
        };
        let node = busy.or_else(waiting);
        let name = node.and_then(|node| node.metadata.name.clone()).unwrap_or_else(|| "cp1".to_owned());
        // the controller runs somewhere
        let places = if victim == Victim::Controller { self.cluster.nodes() } else { vec![name] };
        for place in places {
            for process in process::running(&self.cluster, &place, victim.program()).iter().filter(|process| victim.is(process)) {
                // It may have ended by itself since it was seen.
                drop(self.cluster.try_exec(&place, &["kill", "-9", &process.pid.to_string()]));
            }
        }
        format!("{victim:?} while {:?}", node.map(step).unwrap_or_default())
    }

    /// New pods for agents and controller: the kubelet makes a container that was killed before wait ever longer for its next start.
    async fn renew_the_operators_pods(&self) {
        let name = "app.kubernetes.io/name=clustertracing";
        self.cluster.kubectl(&["delete", "pods", "-n", NAMESPACE, "-l", name, "--grace-period=1"]);
        until("the operator's pods are Ready", Duration::from_mins(2), async || {
            self.cluster.try_kubectl(&["wait", "pods", "-n", NAMESPACE, "-l", name, "--for=condition=Ready", "--timeout=10s"])
        })
        .await;
    }

    /// Kind and name → version, of what the operator writes.
    async fn versions(&self) -> Result<BTreeMap<String, String>, String> {
        fn of<K: Resource<DynamicType = ()>>(list: Vec<K>) -> impl Iterator<Item = (String, String)> {
            list.into_iter().map(|object| {
                let meta = object.meta();
                (format!("{} {}", K::kind(&()), meta.name.clone().unwrap_or_default()), meta.resource_version.clone().unwrap_or_default())
            })
        }
        let client = self.administrator.client();
        let (daemon_sets, config_maps): (Api<DaemonSet>, Api<ConfigMap>) =
            (Api::namespaced(client.clone(), NAMESPACE), Api::namespaced(client, NAMESPACE));
        let all = ListParams::default();
        let daemon_sets = daemon_sets.list(&all).await.map_err(|error| error.to_string())?.items;
        let config_maps = config_maps.list(&all).await.map_err(|error| error.to_string())?.items;
        Ok(of(self.operator.nodes().await?).chain(of(daemon_sets)).chain(of(config_maps)).collect())
    }

    /// Program and node → process and start, of all that a rollout restarts.
    fn starts(&self) -> BTreeMap<(&'static str, String), (u32, u64)> {
        let of = |program| process::starts(&self.cluster, program).into_iter().map(move |(node, start)| ((program, node), start));
        of("kube-apiserver").chain(of("etcd")).collect()
    }

    fn assert_all_restarted(&self, before: &BTreeMap<(&'static str, String), (u32, u64)>) {
        for (key, start) in self.starts() {
            assert_ne!(Some(&start), before.get(&key), "{key:?} still has its old process");
        }
    }

    /// The processes of a node have started before those of the next, whatever the order of the nodes.
    fn assert_started_one_node_after_the_other(&self) {
        let mut starts: Vec<_> = self.starts().into_iter().map(|((_, node), (_, started))| (started, node)).collect();
        starts.sort();
        let nodes: Vec<_> = starts.iter().map(|(_, node)| node).collect();
        assert!(nodes.chunks(2).all(|pair| pair[0] == pair[1]), "the processes started in the order {starts:?}");
    }

    async fn assert_restored(&self) {
        assert_eq!(files::manifests(&self.cluster), self.before, "the manifests are the original ones: bytes, mode, owner");
        files::assert_nothing_left_over(&self.cluster).await;
        checks::assert_untraced(&self.cluster);
    }
}

/// What is killed while a rollout is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Agent,
    Watchdog,
    Controller,
    Kubelet,
    Containerd,
}

impl Victim {
    const ALL: [Self; 5] = [Self::Agent, Self::Controller, Self::Watchdog, Self::Kubelet, Self::Containerd];

    fn program(self) -> &'static str {
        match self {
            Self::Agent | Self::Watchdog => "clustertracing-agent",
            Self::Controller => "clustertracing-controller",
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
        }
    }

    /// The watchdog is the agent's program, with a subcommand.
    fn is(self, process: &process::Process) -> bool {
        let is_watchdog = process.argv.iter().any(|argument| argument == "watchdog");
        is_watchdog == (self == Self::Watchdog)
    }
}

/// Text without its line ends and indents.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('\t', " ")
}
