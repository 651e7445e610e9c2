//! ClusterTracing turns tracing of kube-apiserver and etcd on across a Kubernetes cluster, one node at a time, and takes it back byte for byte.
//!
//! One library, thin programs. The arrows say who may import whom; `tests/architecture.rs` keeps them.
//!
//! ```text
//! bin → {controller, agent} → runtime          programs; I/O with the API server (`cli` uses `runtime`, too)
//!  │      │ │           └───→ host             the only module that touches a node's files, processes, ports
//!  │      │ └─────────────→ store              spans and collectors' metrics: receives, keeps within bounds, answers
//!  └→ cli ┤                                    the kubectl plugin: touches a person's files, and no node's
//!         └───→ plan → component → manifest    pure: no client, no runtime, no files, no environment, no clock, no randomness
//!                 └───────→ api ←──────┘       the resources' types, conditions and reasons, names
//! ```
//!
//! A change, from left to right:
//!
//! ```text
//! ClusterTracing ─observe→ Observed ─plan→ Plan ─apply→ NodeTracing.spec          the controller, again and again
//! NodeTracing.spec ─component::change→ preflight ─────→ NodeTracing.status        each agent: nothing is written
//! NodeTracing.status ─plan::canary→ a pod on each node ─→ its verdict                nothing is written on a node
//! NodeTracing.spec.grant ─agent::machine→ commit, verify, or go back ─→ status    one agent at a time
//! ```
//!
//! # Where to change what
//!
//! | to | change | and its cases |
//! | --- | --- | --- |
//! | add an etcd flag, or a version that names one differently | one row of the table in [`component::etcd`] | `tests/manifests/kubeadm/` |
//! | add a flag, file or variable of kube-apiserver | one row of the table in [`component::kube_apiserver`] | `tests/manifests/kubeadm/` |
//! | change what `kubeadm upgrade` and a joining node get | `extras` of a component, [`component::kubeadm`] | `tests/kubeadm-config/` |
//! | add a flag or a gate that a new version refuses | one row in [`component::upgrade`] | `component::upgrade`'s tests |
//! | refuse a platform that renders the manifests itself | one row of the table in [`component::owner`] | `component::owner`'s tests |
//! | teach the editor a new shape of manifest | [`manifest`] | a folder in `tests/manifests/editor/` |
//! | add a gate before a grant, or change which node is next | [`plan::rollout`] | `tests/plans/` |
//! | change how a change is tried before it is made | [`component::canary`] (what), [`plan::canary`] (when, in which pod) | `tests/canary.rs`, `tests/plans/` |
//! | add a reason | a variant of [`api::Reason`], its check in `cli::check::reasons`; `make generate` writes both to `docs/` | the test that provokes it |
//! | add a field of a resource | [`api::clustertracing`], [`plan::validate`]; `make generate` | `tests/crds.rs` |
//! | change what a node does with a grant | [`agent::machine`] (decides), `agent::effects` (carries out) | `tests/agent/` |
//! | change what counts as drift, who made it, or when it is healed | [`agent::drift`] | `src/agent/drift/tests.rs`, `tests/agent/drift.rs` |
//! | change what a person can do at the node without the cluster | [`agent::recall`] (the way back), [`agent::restore`] (the command), [`agent::originals`] (the README) | `tests/agent/restore.rs` |
//! | change how a collector is tried before it replaces another | [`plan::collector_check`] | `tests/plans/collector-*.yaml` |
//! | change what is asked of a Secret that an exporter names | [`plan::secret`] | its tests |
//! | change what a node asks of the place that spans would go to | [`agent::receiver`] | `tests/agent/receiver.rs` |
//! | change when spans are said to flow, or what is told if they do not | [`plan::flow`] | `tests/flow/` |
//! | change what the collector does | [`plan::collector`] | `tests/collector/`, `tests/collector_runs/` |
//! | change what leaves no node | a statement of a rule in [`plan::collector::redaction`]; `make generate` | a row in `tests/collector_runs/redaction.rs` |
//! | add a command of the plugin, or an example | [`cli`]; `make generate` writes docs/kubectl-tracing.md | a folder in `tests/cli/cases/` |
//! | add a check of `kubectl tracing check` | `cli::check`: an entry of `catalog`, its decision in `decide`, its reasons in `reasons`; `make generate` | `tests/check/` |
//! | change as whom, or how, `request` has a request traced | `cli::request` (`rights`, `forward` decide) | their tests, `tests/request.rs` |
//! | change what is kept of spans, and for how long | [`store`] | its tests, `tests/store.rs` |
//! | change what a span is called, or which step its time is told under | [`cli::trace::name`] | its tests, `tests/waterfall/` |
//! | change how a trace is drawn | [`cli::trace::draw`] (how), [`cli::trace::tree::view`] (what of it) | `tests/waterfall/` |
//!
//! No module but [`component`] knows a flag's name, and none but [`host`] a node's file system.

pub mod agent;
pub mod api;
pub mod cli;
pub mod component;
pub mod controller;
pub mod host;
pub mod manifest;
pub mod plan;
pub mod runtime;
pub mod store;
