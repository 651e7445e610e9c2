//! The agent on real files, with a kubelet of the test's own: one change after the other, stopped and failed at every single effect.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod disk;
mod drift;
mod receiver;
mod rendered;
mod restore;
mod world;

use std::cell::RefCell;
use std::fs;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clustertracing::agent::watchdog::{Guard, Template};
use clustertracing::agent::{Agent, journal};
use clustertracing::api::node_tracing::{
    ComponentSettings, EtcdMember, KubeletHealth, MemberHealth, MemberRole, NodeSettings, NodeTracingStatus, Outcome, OutcomeResult,
    ReceiverKind, Step, TracingFound, Verdict, sha256_hex,
};
use clustertracing::api::{ComponentName, Grant, NodeTracing, NodeTracingSpec, Reason, State, Target};
use clustertracing::host::{Answer, Room};
use futures::FutureExt;
use world::{FILES, Fate, Fault, Killed, World};

const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn mk_object(settings: NodeSettings, grant: i64) -> NodeTracing {
    let target = Target { revision: settings.revision(), settings };
    let grant = Grant { id: grant, revision: target.revision.clone(), generation: 1, attempt: 1, measured_after: None };
    let spec = NodeTracingSpec { node_uid: "uid".into(), target: Some(target), grant: Some(grant) };
    let mut object = NodeTracing::new("cp1", spec);
    object.metadata.generation = Some(1);
    object
}

fn mk_settings(state: State, rate: i32) -> NodeSettings {
    NodeSettings {
        endpoint: "127.0.0.1:4317".into(),
        receiver: ReceiverKind::NodeCollector,
        kube_api_server: ComponentSettings { state, sampling_rate_per_million: rate },
        etcd: ComponentSettings { state, sampling_rate_per_million: 0 },
        watch_termination_grace_seconds: 0,
        health_timeout_seconds: 120,
    }
}

fn on(grant: i64) -> NodeTracing {
    mk_object(mk_settings(State::Enabled, 10_000), grant)
}

fn off(grant: i64) -> NodeTracing {
    mk_object(mk_settings(State::Disabled, 0), grant)
}

fn mk_guard() -> Guard {
    Guard::Pod(Template { image: "clustertracing:dev".into(), manifests_dir: "/manifests".into(), state_dir: "/state".into() })
}

async fn mk_agent(world: &Rc<World>) -> Agent<world::Node> {
    Agent::start(world.open(), "cp1".into()).await.unwrap().guarded_by(mk_guard())
}

/// One process of the agent: start, turns until its outcome is reported. `object` gets the status as the API server would.
async fn live(world: &Rc<World>, object: &mut NodeTracing) {
    // an object without a status knows nothing of what was written for an earlier one
    world.settle();
    let mut agent = mk_agent(world).await;
    let used = object.status.as_ref().and_then(|s| s.last_outcome.as_ref()).map(|o| o.grant);
    for _ in 0..3 {
        let status = agent.turn(object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
        object.status = Some(status);
        world.pass(1_000);
        if let Some(outcome) = object.status.as_ref().and_then(|s| s.last_outcome.as_ref()) {
            agent.reported(outcome).await.unwrap();
            if Some(outcome.grant) > used {
                return;
            }
        }
    }
}

/// The same, until it dies if the world says so; whether it did.
async fn live_or_die(world: &Rc<World>, object: &mut NodeTracing) -> bool {
    match AssertUnwindSafe(live(world, object)).catch_unwind().await {
        Ok(()) => false,
        Err(cause) if cause.is::<Killed>() => true,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

fn outcome(object: &NodeTracing) -> Outcome {
    object.status.as_ref().unwrap().last_outcome.clone().unwrap()
}

fn result(object: &NodeTracing) -> (OutcomeResult, Option<Reason>) {
    let outcome = outcome(object);
    (outcome.result, outcome.reason)
}

fn tracing(status: &NodeTracingStatus) -> Vec<TracingFound> {
    status.components.iter().map(|c| c.tracing).collect()
}

/// A world that was brought to `object` without faults.
async fn mk_reached(objects: &[NodeTracing]) -> Rc<World> {
    let world = World::new();
    for object in objects {
        live(&world, &mut object.clone()).await;
    }
    world
}

#[tokio::test]
async fn a_granted_target_is_reached_verified_and_reported() {
    let (world, mut object) = (World::new(), on(1));
    let (before, pids) = (world.manifests(), world.pids());
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    let status = object.status.unwrap();
    assert_eq!(status.current_revision, Some(object.spec.target.unwrap().revision));
    assert_eq!((status.preflight.as_ref().unwrap().verdict, status.step), (Verdict::Unchanged, Step::Idle));
    assert_eq!(tracing(&status), [TracingFound::Ours, TracingFound::Ours]);
    assert!(status.components.iter().all(|c| c.healthy && c.started_time.is_some()));
    assert!(world.pids().iter().all(|pid| !pids.contains(pid)), "both processes are new");
    let after = world.manifests();
    assert!(before.iter().zip(&after).all(|(b, a)| b.digest != a.digest && b.permissions == a.permissions), "mode and owner stay");
    let text = String::from_utf8(world.manifest("kube-apiserver.yaml")).unwrap();
    let tracing_file = world.ours().into_iter().find(|n| n.starts_with("tracing-")).unwrap();
    assert!(text.contains(&tracing_file));
    let kept = ["README", "applied", "backup", "clustertracing-agent", "etcd.yaml", "kube-apiserver.yaml"];
    assert_eq!(world.ours(), [&kept[..], &[tracing_file.as_str()]].concat());
    assert_eq!(sha256_hex(&fs::read(world.dir.path().join("state/backup/etcd.yaml")).unwrap()), before[0].digest);
}

/// What goes wrong on a node.
type Spoil<'a> = &'a dyn Fn(&World);

/// One turn with a grant, in a world that was spoilt.
async fn turn_in(spoil: impl Fn(&World)) -> (NodeTracingStatus, bool) {
    let (world, object) = (World::new(), on(1));
    spoil(&world);
    let before = world.manifests();
    let mut agent = mk_agent(&world).await;
    let status = agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    let untouched = world.manifests() == before && world.ours().is_empty();
    (status, untouched)
}

#[tokio::test]
async fn a_change_is_not_begun_while_something_stands_in_its_way_and_the_grant_is_kept() {
    let full = Room { bytes: 4096, inodes: None };
    let spoilt: [(Spoil, Reason); 5] = [
        (&|w| *w.kubelet_says.borrow_mut() = Answer::Silent, Reason::KubeletNotAnswering),
        (&|w| w.room.set(full), Reason::NodeDiskFull),
        (&|w| *w.member_says.borrow_mut() = r#"{"health":"false","reason":"ALARM NOSPACE"}"#, Reason::EtcdAlarm),
        (&|w| *w.member_says.borrow_mut() = r#"{"health":"false","reason":"RAFT NO LEADER"}"#, Reason::EtcdUnhealthy),
        (&|w| w.kubeadm_runs.set(true), Reason::UpgradeInProgress),
    ];
    for (spoil, reason) in spoilt {
        let (status, untouched) = turn_in(spoil).await;
        assert_eq!(status.blockers.iter().map(|b| b.reason).collect::<Vec<_>>(), [reason]);
        assert_eq!((status.last_outcome, status.step, untouched), (None, Step::Idle, true), "{reason}");
    }
}

#[tokio::test]
async fn a_change_begins_once_nothing_stands_in_its_way_any_more() {
    let (world, mut object) = (World::new(), on(1));
    *world.kubelet_says.borrow_mut() = Answer::Silent;
    live(&world, &mut object).await;
    assert_eq!(object.status.as_ref().unwrap().last_outcome, None);
    *world.kubelet_says.borrow_mut() = Answer::Told(200, "ok".into());
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    assert_eq!(object.status.unwrap().blockers, []);
}

#[tokio::test]
async fn the_first_node_is_measured_before_its_change_and_once_more_after_the_soak_time() {
    let (world, mut object) = (World::new(), on(1));
    object.spec.grant.as_mut().unwrap().measured_after = Some(30);
    live(&world, &mut object).await;
    let soak = object.status.as_ref().unwrap().soak.clone().unwrap();
    assert_eq!((soak.grant, soak.before.as_ref().map(|m| m.memory_mib), soak.after), (1, Some(300), None));
    // Another process of the agent ends what the first one began, and says it once.
    let mut agent = mk_agent(&world).await;
    let mut turn = async |seconds: u64| {
        world.pass(seconds * 1_000);
        let status = agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
        object.status = Some(status);
        object.status.as_ref().and_then(|s| s.soak.clone()).unwrap().after
    };
    assert_eq!(turn(10).await, None);
    let after = turn(21).await;
    assert_eq!(after.as_ref().map(|m| m.memory_mib), Some(300));
    world.memory.set(900 << 20);
    assert_eq!(turn(60).await, after);
}

#[tokio::test]
async fn a_node_that_is_not_the_first_is_not_measured() {
    let (world, mut object) = (World::new(), on(1));
    live(&world, &mut object).await;
    assert_eq!(object.status.unwrap().soak, None);
}

#[tokio::test]
async fn an_etcd_member_is_reported_as_it_says() {
    let (status, _) = turn_in(|_| {}).await;
    let alone = EtcdMember { health: MemberHealth::Healthy, role: Some(MemberRole::Leader), members: Some(1), connected: Some(1) };
    assert_eq!((status.etcd, status.kubelet), (Some(alone), Some(KubeletHealth::Healthy)));
}

#[tokio::test]
async fn off_gives_the_original_bytes_back_and_leaves_nothing() {
    let world = World::new();
    let before = world.manifests();
    for grant in [1, 3] {
        live(&world, &mut on(grant)).await;
        assert_ne!(world.manifests(), before);
        let mut object = off(grant + 1);
        live(&world, &mut object).await;
        assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
        assert_eq!(world.manifests(), before);
        assert_eq!(world.ours(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_new_rate_restarts_kube_apiserver_alone() {
    let world = mk_reached(&[on(1)]).await;
    let (backup, before) = (fs::read(world.dir.path().join("state/backup/kube-apiserver.yaml")).unwrap(), world.pids());
    let mut object = mk_object(mk_settings(State::Enabled, 250_000), 2);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    let after = world.pids();
    assert!(before[0] == after[0] && before[1] != after[1], "{before:?} {after:?}");
    assert_eq!(world.ours().iter().filter(|n| n.starts_with("tracing-")).count(), 1, "the old tracing file is gone");
    let kept = fs::read(world.dir.path().join("state/backup/kube-apiserver.yaml")).unwrap();
    assert_eq!(kept, backup, "the backup is of the original, not of our earlier edit");
}

#[tokio::test]
async fn nothing_is_written_without_a_grant_nor_once_the_target_is_reached() {
    let world = World::new();
    let mut object = on(1);
    let grant = object.spec.grant.take();
    live(&world, &mut object).await;
    let preflight = object.status.clone().unwrap().preflight.unwrap();
    assert_eq!((preflight.verdict, preflight.changes), (Verdict::Ready, vec![ComponentName::KubeApiserver, ComponentName::Etcd]));
    assert_eq!(*world.trace.borrow(), ["remove state/backup/"], "the start's clean-up alone");

    object.spec.grant = grant;
    live(&world, &mut object).await;
    let effects = world.effects.get();
    let mut agent = mk_agent(&world).await;
    let mut statuses = Vec::new();
    for _ in 0..100 {
        world.pass(10_000);
        statuses.push(agent.turn(&object, Some("uid"), async |_, _| panic!("not asked"), |_| {}).await.unwrap());
    }
    assert_eq!(world.effects.get(), effects);
    assert!(statuses.iter().all(|s| Some(s) == object.status.as_ref()), "100 idle turns report the same");
}

#[tokio::test]
async fn a_grant_for_another_node_target_or_time_is_not_acted_on() {
    type Spoil = fn(&mut NodeTracing);
    let cases: [(&str, Spoil); 5] = [
        ("another node", |o| o.spec.node_uid = "earlier".into()),
        ("another target", |o| o.spec.grant.as_mut().unwrap().revision = "000000000000".into()),
        ("used", |o| {
            let outcome = clustertracing::agent::machine::outcome(
                o.spec.grant.as_ref().unwrap(),
                OutcomeResult::RolledBack,
                None,
                String::new(),
                0,
                &clustertracing::host::Now { since_boot: 0, boot_id: String::new(), wall: jiff::Timestamp::UNIX_EPOCH },
            );
            o.status = Some(NodeTracingStatus { last_outcome: Some(outcome), ..NodeTracingStatus::default() });
        }),
        ("no target", |o| o.spec.target = None),
        ("being deleted", |o| {
            o.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        }),
    ];
    for (name, spoil) in cases {
        let (world, mut object) = (World::new(), on(1));
        let before = world.manifests();
        spoil(&mut object);
        live(&world, &mut object).await;
        assert_eq!((world.manifests(), world.ours().len()), (before, 0), "{name}");
    }
}

#[tokio::test]
async fn a_grant_that_is_withdrawn_before_the_commit_is_dropped_and_not_used_up() {
    let (world, object) = (World::new(), on(1));
    let before = world.manifests();
    let mut agent = mk_agent(&world).await;
    let status = agent.turn(&object, Some("uid"), async |_, _| Err("withdrawn".into()), |_| {}).await.unwrap();
    assert_eq!((status.last_outcome, world.manifests(), world.ours().len()), (None, before, 0));
    let status = agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    assert_eq!(status.last_outcome.unwrap().result, OutcomeResult::Succeeded);
}

#[tokio::test]
async fn a_grant_waits_until_the_kubelet_has_told_of_its_node_since_it_was_started() {
    let (world, object) = (World::new(), on(1));
    let before = world.manifests();
    let mut agent = mk_agent(&world).await;
    let status = agent.turn(&object, Some("uid"), async |_, _| Ok(None), |_| {}).await.unwrap();
    let blocking: Vec<_> = status.blockers.iter().map(|blocker| blocker.reason).collect();
    assert_eq!((status.last_outcome, blocking), (None, vec![Reason::KubeletNotSynced]), "it is told, and the grant is not used up");
    assert_eq!((world.manifests(), world.ours().len()), (before, 0));
    let status = agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    assert_eq!((status.last_outcome.unwrap().result, status.blockers), (OutcomeResult::Succeeded, vec![]));
}

#[tokio::test]
async fn steps_are_reported_while_the_change_is_under_way() {
    let (world, object, steps) = (World::new(), on(1), RefCell::new(Vec::new()));
    let mut agent = mk_agent(&world).await;
    agent
        .turn(
            &object,
            Some("uid"),
            async |_, _| Ok(Some(jiff::Timestamp::MAX)),
            |s| steps.borrow_mut().push((s.step, s.preflight.unwrap().verdict)),
        )
        .await
        .unwrap();
    let ready = |step| (step, Verdict::Ready);
    assert_eq!(*steps.borrow(), [ready(Step::Committing), ready(Step::Verifying), ready(Step::Idle)]);
}

/// Runs a change with a fault at each effect in turn, until it comes to an end without meeting it; how many effects that took.
async fn at_every_effect(
    setup: &[NodeTracing],
    object: &NodeTracing,
    fault: Fault,
    check: impl AsyncFn(usize, &Rc<World>, NodeTracing),
) -> usize {
    let (start, reached) = (mk_reached(setup).await, mk_reached(&[setup, std::slice::from_ref(object)].concat()).await);
    for number in 0.. {
        let (world, mut object) = (start.fork(), object.clone());
        world.allow(&reached);
        let first = world.effects.get();
        world.fault.set(Some((first + number, fault)));
        if matches!(fault, Fault::Crash | Fault::PowerCut) {
            if !live_or_die(&world, &mut object).await {
                return number;
            }
            world.fault.set(None);
            // the kubelet goes on while the agent is started again
            world.pass(3_000);
            live(&world, &mut object).await;
        } else {
            live(&world, &mut object).await;
            if world.effects.get() <= first + number {
                return number;
            }
            world.fault.set(None);
        }
        check(number, &world, object).await;
    }
    unreachable!("a change has an end")
}

/// Stops a change at each effect in turn: whenever it was, the next process of the agent brings the node to the same end.
async fn ends_in_the_desired_state(setup: &[NodeTracing], object: NodeTracing, fault: Fault) {
    let desired = mk_reached(&[setup, std::slice::from_ref(&object)].concat()).await;
    let moments = at_every_effect(setup, &object, fault, async |number, world, object| {
        let context = format!("{fault:?} at effect {number}: {}", world.trace.borrow().join(", "));
        assert_eq!(result(&object), (OutcomeResult::Succeeded, None), "{context}");
        assert_eq!(world.manifests(), desired.manifests(), "{context}");
        assert_eq!(world.ours(), desired.ours(), "{context}");
    })
    .await;
    assert!(moments >= 20, "only {moments} moments were tried");
}

#[tokio::test]
async fn a_crash_at_any_effect_of_switching_on_ends_with_tracing_on() {
    ends_in_the_desired_state(&[], on(1), Fault::Crash).await;
}

#[tokio::test]
async fn a_power_cut_at_any_effect_of_switching_on_ends_with_tracing_on() {
    ends_in_the_desired_state(&[], on(1), Fault::PowerCut).await;
}

#[tokio::test]
async fn a_crash_at_any_effect_of_a_new_rate_ends_with_the_new_rate() {
    ends_in_the_desired_state(&[on(1)], mk_object(mk_settings(State::Enabled, 5), 2), Fault::Crash).await;
}

#[tokio::test]
async fn a_crash_at_any_effect_of_switching_off_ends_with_the_original_bytes() {
    ends_in_the_desired_state(&[on(1)], off(2), Fault::Crash).await;
}

#[tokio::test]
async fn a_crash_at_any_effect_of_a_rollback_ends_with_the_old_bytes() {
    let original = World::new();
    let (mut moments, mut number) = (0, 0);
    let mut settings = mk_settings(State::Enabled, 10_000);
    settings.health_timeout_seconds = 10;
    loop {
        let (world, mut object) = (World::new(), mk_object(settings.clone(), 1));
        world.fate.set(Fate::Silent);
        world.fault.set(Some((number, Fault::Crash)));
        if !live_or_die(&world, &mut object).await {
            break;
        }
        world.fault.set(None);
        live(&world, &mut object).await;
        assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::HealthTimeout)), "crash before effect {number}");
        assert_eq!((world.manifests(), world.ours()), (original.manifests(), vec![]), "crash before effect {number}");
        (moments, number) = (moments + 1, number + 1);
    }
    assert!(moments >= 20, "only {moments} moments were tried");
}

#[tokio::test]
async fn an_effect_that_fails_once_changes_nothing_or_all_or_goes_back() {
    let (old, new) = (World::new(), mk_reached(&[on(1)]).await);
    let tried = at_every_effect(&[], &on(1), Fault::Once(ENOSPC), async |number, world, mut object| {
        let context = format!("no space at effect {number}: {}", world.trace.borrow().join(", "));
        let expected = match result(&object) {
            (OutcomeResult::Succeeded, None) => new.manifests(),
            (OutcomeResult::Refused | OutcomeResult::RolledBack, Some(Reason::NodeFilesUnwritable)) => old.manifests(),
            other => panic!("{other:?}, {context}"),
        };
        assert_eq!(world.manifests(), expected, "{context}");
        // what could not be removed at once is removed by the next process
        live(world, &mut object).await;
        assert_eq!(world.leftovers(), Vec::<String>::new(), "{context}");
    })
    .await;
    assert!(tried >= 20, "only {tried} effects were tried");
}

#[tokio::test]
async fn a_disk_that_fails_for_good_leaves_old_or_new_bytes_and_an_honest_outcome() {
    let (old, new) = (World::new(), mk_reached(&[on(1)]).await);
    at_every_effect(&[], &on(1), Fault::FromNowOn(EROFS), async |number, world, object| {
        let context = format!("read-only from effect {number}: {}", world.trace.borrow().join(", "));
        match result(&object) {
            (OutcomeResult::Succeeded, None) => assert_eq!(world.manifests(), new.manifests(), "{context}"),
            (OutcomeResult::Refused, Some(Reason::NodeFilesUnwritable)) => assert_eq!(world.manifests(), old.manifests(), "{context}"),
            // nothing can be written nor synced any more, the way back included: a person is told both causes
            (OutcomeResult::Failed, Some(Reason::RollbackFailed)) => {
                let message = outcome(&object).message;
                assert!(message.contains("going back failed") && message.contains("it was needed because"), "{message}");
            }
            other => panic!("{other:?}, {context}"),
        }
    })
    .await;
}

#[tokio::test]
async fn processes_that_never_answer_lead_back_to_the_same_bytes_mode_and_owner() {
    let (world, mut object) = (World::new(), on(1));
    let (before, start) = (world.manifests(), world.seconds());
    world.fate.set(Fate::Silent);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::HealthTimeout)));
    assert_eq!((world.manifests(), world.ours()), (before, vec![]));
    let spent = world.seconds() - start;
    assert!((120..140).contains(&spent), "{spent} s");
    let status = object.status.unwrap();
    assert_eq!((status.preflight.unwrap().verdict, status.current_revision), (Verdict::Ready, None));
    assert!(status.components.iter().all(|c| c.healthy));
}

#[tokio::test]
async fn processes_that_end_at_once_lead_back_at_once() {
    let (world, mut object) = (World::new(), on(1));
    let (before, start) = (world.manifests(), world.seconds());
    world.fate.set(Fate::Exits);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::NewProcessExited)));
    assert_eq!((world.manifests(), world.ours()), (before, vec![]));
    let spent = world.seconds() - start;
    assert!(spent < 25, "{spent} s");
}

#[tokio::test]
async fn the_api_is_away_for_seconds_whether_or_not_the_pods_of_processes_are_known() {
    for known in [true, false] {
        let (world, mut object) = (World::new(), on(1));
        world.pods_are_seen.set(known);
        let start = world.seconds();
        live(&world, &mut object).await;
        assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
        let spent = world.seconds() - start;
        assert!(spent < 13, "{spent} s: the kubelet put a new pod off, or etcd waited for its client");
    }
}

#[tokio::test]
async fn processes_that_work_towards_an_answer_have_more_time() {
    let (world, mut object) = (World::new(), on(1));
    world.fate.set(Fate::Works(300_000));
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
}

#[tokio::test]
async fn processes_that_never_start_lead_back_long_before_the_deadline() {
    let (world, mut object) = (World::new(), on(1));
    let (before, start) = (world.manifests(), world.seconds());
    world.fate.set(Fate::NeverStarts);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::NewProcessNotStarted)));
    assert_eq!((world.manifests(), world.ours()), (before, vec![]));
    let spent = world.seconds() - start;
    assert!(spent < 75, "{spent} s");
}

#[tokio::test]
async fn starts_that_cannot_be_looked_for_lead_back_and_are_not_looked_for_without_a_pause() {
    let (world, mut object) = (World::new(), on(1));
    let before = world.manifests();
    world.starts_unseen.set(Some(0));
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::HealthTimeout)));
    assert_eq!(world.manifests(), before);
}

#[tokio::test]
async fn a_tracing_file_that_is_emptied_while_the_new_processes_start_leads_back() {
    let (world, mut object) = (World::new(), on(1));
    // the third rename in the manifests folder is the first new manifest's
    *world.rival.borrow_mut() = Some((
        2,
        Box::new(|folder: &Path| {
            let state = folder.parent().unwrap().join("state");
            let names = fs::read_dir(&state).unwrap().map(|e| e.unwrap().path());
            names
                .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("tracing-"))
                .for_each(|path| fs::write(path, "").unwrap());
        }),
    ));
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::TracingFileDamaged)));
}

#[tokio::test]
async fn a_kubelet_that_does_not_react_leads_back_while_the_old_processes_run_on() {
    let (world, mut object) = (World::new(), on(1));
    let (before, pids) = (world.manifests(), world.pids());
    world.kubelet_works.set(false);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::KubeletNotReacting)));
    assert_eq!((world.manifests(), world.pids()), (before, pids));
}

#[tokio::test]
async fn somebody_elses_change_before_the_write_is_not_overwritten() {
    let (world, mut object) = (World::new(), on(1));
    let add = |folder: &Path| {
        fs::write(folder.join("etcd.yaml"), [fs::read(folder.join("etcd.yaml")).unwrap(), b"# mine\n".to_vec()].concat()).unwrap();
    };
    let before = FILES.map(|file| world.manifest(file));
    // kube-apiserver's manifest is taken away first; etcd's is changed in the moment before that
    *world.rival.borrow_mut() = Some((0, Box::new(add)));
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::ManifestChanged)));
    assert_eq!(world.manifest("etcd.yaml"), [before[0].clone(), b"# mine\n".to_vec()].concat());
    assert_eq!(world.manifest("kube-apiserver.yaml"), before[1]);
}

#[tokio::test]
async fn somebody_elses_change_after_the_write_is_not_overwritten_by_going_back() {
    let (reached, original) = (mk_reached(&[on(1)]).await, World::new().manifest("kube-apiserver.yaml"));
    let trace = reached.trace.borrow().clone();
    let last_rename = trace.iter().rposition(|effect| effect == "rename manifests/kube-apiserver.yaml").unwrap();
    // The agent dies after both manifests are in place, and an administrator edits one before it is started again.
    // Before the journal says that they are in place, the edit is taken for a lost race; after it, for a change of what is ours.
    for (effect, expected) in [(last_rename + 2, OutcomeResult::RolledBack), (last_rename + 5, OutcomeResult::Failed)] {
        let (world, mut object) = (World::new(), on(1));
        world.fault.set(Some((effect, Fault::Crash)));
        assert!(live_or_die(&world, &mut object).await);
        world.fault.set(None);
        let edited = [world.manifest("etcd.yaml"), b"# mine\n".to_vec()].concat();
        fs::write(world.dir.path().join("manifests/etcd.yaml"), &edited).unwrap();
        live(&world, &mut object).await;
        assert_eq!(result(&object), (expected, Some(Reason::ManifestChanged)), "{}", trace[effect]);
        assert_eq!((world.manifest("etcd.yaml"), world.manifest("kube-apiserver.yaml")), (edited, original.clone()));
    }
}

#[tokio::test]
async fn a_component_that_is_not_well_is_not_restarted_and_waited_for() {
    let (world, mut object) = (World::new(), on(1));
    let before = world.manifests();
    // both have just been started, and do not answer yet
    for file in FILES {
        let path = world.dir.path().join("manifests").join(file);
        fs::write(&path, [fs::read(&path).unwrap(), b"# touched\n".to_vec()].concat()).unwrap();
    }
    world.pass(2_000);
    let mut agent = mk_agent(&world).await.quiet_for(Duration::ZERO);
    let status = agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    let blocking: Vec<_> = status.blockers.iter().map(|blocker| blocker.reason).collect();
    assert_eq!((&status.last_outcome, blocking), (&None, vec![Reason::ComponentUnhealthy]), "the grant is not used up");
    assert_eq!(world.ours(), Vec::<String>::new());
    assert_ne!(world.manifests(), before);
    world.pass(60_000);
    object.status = Some(agent.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap());
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
}

#[tokio::test]
async fn a_damaged_journal_stops_everything_and_says_so() {
    let (world, mut object) = (World::new(), on(1));
    let before = world.manifests();
    fs::write(world.dir.path().join("state/journal"), "clustertracing-journal 1 0000\n{}\n").unwrap();
    live(&world, &mut object).await;
    let preflight = object.status.unwrap().preflight.unwrap();
    assert_eq!((preflight.verdict, preflight.reason), (Verdict::Refused, Some(Reason::JournalDamaged)));
    assert_eq!((world.manifests(), world.ours()), (before, vec!["journal".to_owned()]));
}

#[tokio::test]
async fn an_outcome_that_could_not_be_reported_is_reported_by_the_next_process() {
    let (world, object) = (World::new(), on(1));
    let mut first = mk_agent(&world).await;
    first.turn(&object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    drop(first); // nobody was told
    let mut second = mk_agent(&world).await;
    let pids = world.pids();
    let status = second.turn(&object, Some("uid"), async |_, _| panic!("not done again"), |_| {}).await.unwrap();
    let outcome = status.last_outcome.unwrap();
    assert_eq!((outcome.grant, outcome.result), (1, OutcomeResult::Succeeded));
    assert!(world.leftovers().contains(&"journal".to_owned()));
    second.reported(&outcome).await.unwrap();
    assert_eq!((world.leftovers().len(), world.pids()), (0, pids));
}

/// The watchdog's process, from when it gets the lock until it lets go of it.
async fn live_as_watchdog(world: &Rc<World>) {
    drop(Agent::start(world.open(), String::new()).await.unwrap());
}

#[tokio::test]
async fn the_watchdog_goes_on_wherever_the_agent_died_and_leaves_the_outcome_to_its_successor() {
    let reached = mk_reached(&[on(1)]).await;
    let trace = reached.trace.borrow().clone();
    let at = |effect: &str| trace.iter().position(|e| e == effect).unwrap();
    // before the first rename, with one manifest away, with both away, with one new one in, with both in
    let moments = [
        (at("rename manifests/clustertracing-watchdog.json") + 1, false),
        (at("rename manifests/.kube-apiserver.yaml.clustertracing-") + 1, true),
        (at("rename manifests/.etcd.yaml.clustertracing-") + 1, true),
        (at("rename manifests/etcd.yaml") + 1, true),
        (at("rename manifests/kube-apiserver.yaml") + 1, true),
    ];
    for (moment, goes_on) in moments {
        for fault in [Fault::Crash, Fault::PowerCut] {
            let (world, mut object) = (World::new(), on(1));
            world.allow(&reached);
            world.fault.set(Some((moment, fault)));
            assert!(live_or_die(&world, &mut object).await, "{}", trace[moment]);
            world.fault.set(None);
            live_as_watchdog(&world).await;
            let context = format!("{fault:?} before {}", trace[moment]);
            let outcome = journal::load(&world.open()).unwrap().and_then(|flight| flight.outcome().cloned());
            let done = world.manifests() == reached.manifests();
            assert!(done || world.manifests() == World::new().manifests(), "{context}");
            assert_eq!(outcome.map(|o| o.result), done.then_some(OutcomeResult::Succeeded), "{context}");
            assert!(fault == Fault::PowerCut || done == goes_on, "{context}");
            assert!(!world.ours().iter().any(|name| name.contains("watchdog")), "{context}");
            // the agent reports what the watchdog did, or does it once the processes of a new boot are well
            world.pass(10_000);
            live(&world, &mut object).await;
            assert_eq!((result(&object), world.manifests()), ((OutcomeResult::Succeeded, None), reached.manifests()), "{context}");
            assert_eq!(world.ours(), reached.ours(), "{context}");
        }
    }
}

#[tokio::test]
async fn the_watchdog_goes_back_from_a_bad_change_without_the_agent() {
    let (world, mut object) = (World::new(), on(1));
    let before = world.manifests();
    world.fate.set(Fate::Silent);
    let last = mk_reached(&[on(1)]).await.trace.borrow().iter().position(|e| e == "rename manifests/kube-apiserver.yaml").unwrap();
    world.fault.set(Some((last + 1, Fault::PowerCut)));
    assert!(live_or_die(&world, &mut object).await);
    world.fault.set(None);
    live_as_watchdog(&world).await;
    assert_eq!((world.manifests(), world.ours()), (before, vec!["journal".to_owned()]));
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::RolledBack, Some(Reason::HealthTimeout)));
}

#[tokio::test]
async fn a_watchdog_that_does_not_start_refuses_the_grant() {
    let (world, mut object) = (World::new(), on(1));
    let before = world.manifests();
    world.watchdog_starts.set(false);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Refused, Some(Reason::WatchdogNotStarted)));
    assert_eq!((world.manifests(), world.ours()), (before, vec![]));
}

#[tokio::test]
async fn nothing_is_left_over_but_the_journal_when_the_outcome_is_reported() {
    let (world, mut switch_off) = (mk_reached(&[on(1)]).await, off(2));
    world.settle();
    let mut agent = mk_agent(&world).await;
    let status = agent.turn(&switch_off, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    switch_off.status = Some(status);
    assert_eq!(result(&switch_off), (OutcomeResult::Succeeded, None));
    assert_eq!(world.ours(), ["journal"]);
    agent.reported(&outcome(&switch_off)).await.unwrap();
    assert_eq!(world.ours(), Vec::<String>::new());
}
