//! Files of a node that somebody changed after the agent: what is told, what is put right and when, and what is left as it is.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use clustertracing::api::{Deviation, Drift, DriftCause};

use super::*;

const ETCD: &str = "etcd.yaml";
/// Longer than a manifest must have been left alone.
const QUIET: u64 = 125_000;

fn path(world: &World, file: &str) -> std::path::PathBuf {
    world.dir.path().join("manifests").join(file)
}

fn text(world: &World, file: &str) -> String {
    String::from_utf8(world.manifest(file)).unwrap()
}

/// Somebody edits a manifest, and the kubelet acts on it; `wait` passes.
fn edit(world: &World, file: &str, edit: impl FnOnce(&str) -> String, wait: u64) {
    let edited = edit(&text(world, file));
    fs::write(path(world, file), edited).unwrap();
    world.pass(wait);
}

/// A flag at the end of the command, where people put it.
fn with_flag(text: &str) -> String {
    let last = text.lines().rfind(|line| line.starts_with("    - --")).unwrap();
    text.replacen(last, &format!("{last}\n    - --log-level=warn"), 1)
}

fn backup(world: &World, file: &str) -> String {
    fs::read_to_string(world.dir.path().join("state/backup").join(file)).unwrap()
}

fn tracing_file(world: &World) -> std::path::PathBuf {
    let name = world.ours().into_iter().find(|n| n.starts_with("tracing-")).unwrap();
    world.dir.path().join("state").join(name)
}

/// What an agent that is started now tells, and does under the grant of `object`.
async fn look(world: &Rc<World>, object: &NodeTracing) -> NodeTracingStatus {
    let mut agent = mk_agent(world).await;
    agent.turn(object, Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap()
}

fn found(status: &NodeTracingStatus) -> Vec<(&str, Deviation, DriftCause)> {
    status.drift.iter().map(|Drift { file, what, cause, .. }| (file.as_str(), *what, *cause)).collect()
}

/// The target, and no grant.
fn ungranted() -> NodeTracing {
    let mut object = on(1);
    object.spec.grant = None;
    object
}

fn at_generation(generation: i64, grant: i64) -> NodeTracing {
    let mut object = on(grant);
    object.spec.grant.as_mut().unwrap().generation = generation;
    object
}

#[tokio::test]
async fn a_manifest_that_kubeadm_renders_anew_is_told_at_once_and_healed_once_the_node_is_quiet() {
    let world = mk_reached(&[on(1)]).await;
    let (ours, rendered) = (text(&world, ETCD), text(&World::new(), ETCD));
    edit(&world, ETCD, |_| rendered, 20_000);
    let status = look(&world, &on(2)).await;
    assert_eq!(found(&status), [(ETCD, Deviation::Content, DriftCause::KubeadmRender)]);
    assert_eq!((status.last_outcome, status.current_revision), (None, None), "the grant waits");
    let preflight = status.preflight.unwrap();
    assert_eq!((preflight.changes, status.blockers[0].reason), (vec![ComponentName::Etcd], Reason::WaitingForQuiet));
    let pids = world.pids();
    world.pass(QUIET);
    let mut object = on(2);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    assert_eq!((text(&world, ETCD), found(object.status.as_ref().unwrap())), (ours, vec![]));
    assert_eq!(world.pids()[1], pids[1], "kube-apiserver has not drifted, and is not restarted");
}

#[tokio::test]
async fn what_a_person_changed_besides_survives_the_heal_and_is_what_off_gives_back() {
    let world = mk_reached(&[on(1)]).await;
    let original = text(&World::new(), ETCD);
    edit(&world, ETCD, |_| with_flag(&original), QUIET);
    assert_eq!(found(&look(&world, &ungranted()).await), [(ETCD, Deviation::Content, DriftCause::Human)]);
    live(&world, &mut on(2)).await;
    let healed = text(&world, ETCD);
    assert!(healed.contains("--log-level=warn") && healed.contains("clustertracing.dev/added"), "{healed}");
    assert_eq!(backup(&world, ETCD), with_flag(&original), "the backup is of what its owner wants, and not of what was there once");
    live(&world, &mut off(3)).await;
    assert_eq!((text(&world, ETCD), world.ours()), (with_flag(&original), vec![]));
}

#[tokio::test]
async fn a_person_who_leaves_our_additions_alone_is_followed_without_a_restart() {
    let world = mk_reached(&[on(1)]).await;
    edit(&world, ETCD, with_flag, 60_000);
    let (pids, manifests) = (world.pids(), world.manifests());
    let status = look(&world, &ungranted()).await;
    assert_eq!((found(&status), status.preflight.as_ref().unwrap().verdict), (vec![], Verdict::Unchanged));
    assert_eq!((world.pids(), world.manifests()), (pids, manifests));
    assert_eq!(backup(&world, ETCD), with_flag(&text(&World::new(), ETCD)));
    let effects = world.effects.get();
    look(&world, &ungranted()).await;
    assert_eq!(world.effects.get(), effects, "it is followed once");
    live(&world, &mut off(3)).await;
    assert_eq!(text(&world, ETCD), with_flag(&text(&World::new(), ETCD)));
}

#[tokio::test]
async fn mode_and_tracing_file_are_put_right_under_a_grant_and_nothing_restarts() {
    type Spoil = fn(&World);
    let cases: [(&str, Spoil, Deviation); 5] = [
        ("mode", |w| fs::set_permissions(path(w, ETCD), fs::Permissions::from_mode(0o666)).unwrap(), Deviation::Mode),
        ("gone", |w| fs::remove_file(tracing_file(w)).unwrap(), Deviation::Missing),
        ("empty", |w| fs::write(tracing_file(w), "").unwrap(), Deviation::Empty),
        ("other", |w| fs::write(tracing_file(w), "mine").unwrap(), Deviation::Content),
        ("private", |w| fs::set_permissions(tracing_file(w), fs::Permissions::from_mode(0o600)).unwrap(), Deviation::Mode),
    ];
    let reached = mk_reached(&[on(1)]).await;
    let (expected, tracing) = (reached.manifests(), fs::read(tracing_file(&reached)).unwrap());
    for (name, spoil, what) in cases {
        let world = reached.fork();
        spoil(&world);
        world.pass(QUIET);
        let pids = world.pids();
        let told = look(&world, &ungranted()).await;
        assert_eq!(told.drift.iter().map(|d| d.what).collect::<Vec<_>>(), [what], "{name}");
        let preflight = told.preflight.unwrap();
        assert_eq!((preflight.verdict, preflight.changes), (Verdict::Ready, vec![]), "{name}: nothing would restart");
        let status = look(&world, &on(2)).await;
        assert_eq!(status.last_outcome.as_ref().map(|o| o.result), Some(OutcomeResult::Succeeded), "{name}");
        assert_eq!((found(&status), world.pids(), world.manifests()), (vec![], pids, expected.clone()), "{name}");
        let file = tracing_file(&world);
        assert_eq!((fs::read(&file).unwrap(), fs::metadata(&file).unwrap().mode() & 0o777), (tracing.clone(), 0o644), "{name}");
    }
}

#[tokio::test]
async fn a_crash_at_any_effect_of_putting_files_right_ends_with_them_right() {
    let reached = mk_reached(&[on(1)]).await;
    let spoil = |world: &World| {
        fs::set_permissions(path(world, ETCD), fs::Permissions::from_mode(0o666)).unwrap();
        fs::remove_file(tracing_file(world)).unwrap();
        world.pass(QUIET);
    };
    for number in 0.. {
        let (world, mut object) = (reached.fork(), on(2));
        spoil(&world);
        world.fault.set(Some((world.effects.get() + number, Fault::Crash)));
        if !live_or_die(&world, &mut object).await {
            assert!(number >= 10, "only {number} moments were tried");
            return;
        }
        world.fault.set(None);
        world.pass(3_000);
        live(&world, &mut on(2)).await;
        assert_eq!((world.manifests(), world.ours()), (reached.manifests(), reached.ours()), "crash before effect {number}");
    }
}

#[tokio::test]
async fn a_second_drift_soon_after_a_heal_is_refused_until_the_spec_is_edited() {
    let world = mk_reached(&[on(1)]).await;
    let rendered = text(&World::new(), ETCD);
    let spoil = |world: &World| edit(world, ETCD, |_| rendered.clone(), QUIET);
    spoil(&world);
    live(&world, &mut at_generation(1, 2)).await;
    assert!(text(&world, ETCD).contains("clustertracing.dev/added"), "healed once");

    spoil(&world);
    let mut object = at_generation(1, 3);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Refused, Some(Reason::Conflict)));
    assert_eq!(object.status.unwrap().drift[0].healed_generation, Some(1));
    assert_eq!(text(&world, ETCD), rendered, "it is left as it is");

    // It stays so, however long it is left alone.
    world.pass(600_000);
    assert_eq!(look(&world, &at_generation(1, 4)).await.last_outcome.unwrap().reason, Some(Reason::Conflict));
    let mut object = at_generation(2, 5);
    live(&world, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
}

#[tokio::test]
async fn a_record_that_is_lost_or_damaged_is_made_anew_from_what_is_found() {
    let reached = mk_reached(&[on(1)]).await;
    let record = |world: &World| world.dir.path().join("state/applied");
    for contents in [None, Some("clustertracing-applied 1 0000\n{}\n")] {
        let world = reached.fork();
        match contents {
            None => fs::remove_file(record(&world)).unwrap(),
            Some(contents) => fs::write(record(&world), contents).unwrap(),
        }
        let status = look(&world, &ungranted()).await;
        assert_eq!((found(&status), status.preflight.as_ref().unwrap().verdict), (vec![], Verdict::Unchanged));
        fs::remove_file(tracing_file(&world)).unwrap();
        assert_eq!(look(&world, &ungranted()).await.drift.len(), 1, "and serves");
    }
}

#[tokio::test]
async fn a_manifest_that_somebody_removed_is_not_made_again_and_its_backup_stays_until_a_person_puts_it_back() {
    let world = mk_reached(&[on(1)]).await;
    let ours = text(&world, ETCD);
    fs::remove_file(path(&world, ETCD)).unwrap();
    world.pass(QUIET);
    for _ in 0..2 {
        let status = look(&world, &on(2)).await;
        assert_eq!(found(&status), [(ETCD, Deviation::Missing, DriftCause::Human)]);
        assert_eq!(status.last_outcome.unwrap().reason, Some(Reason::ManifestNotFound));
        assert!(!path(&world, ETCD).exists());
    }
    // As the message says.
    fs::copy(world.dir.path().join("state/backup").join(ETCD), path(&world, ETCD)).unwrap();
    fs::set_permissions(path(&world, ETCD), fs::Permissions::from_mode(0o640)).unwrap();
    world.pass(QUIET);
    let mut object = on(3);
    live(&world, &mut object).await;
    assert_eq!((result(&object), text(&world, ETCD)), ((OutcomeResult::Succeeded, None), ours));
}
