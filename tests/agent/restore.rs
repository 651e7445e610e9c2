//! A person gives a node its original manifests back: without API server and controller, in the middle of a change or without one, beside an
//! agent that lives or alone, with whatever is broken.

use std::cell::{OnceCell, RefCell};
use std::fs;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::rc::Rc;

use clustertracing::agent::restore::{Access, restore};
use clustertracing::api::node_tracing::{OutcomeResult, Verdict, sha256_hex};
use clustertracing::api::{NodeTracing, Reason, State};
use futures::FutureExt;

use crate::world::{FILES, Fate, Fault, Killed, Standing, World};
use crate::{ENOSPC, EROFS, live, live_or_die, mk_agent, mk_object, mk_reached, mk_settings, off, on, outcome, result};

/// What is left in our folder while a person keeps the node as it is.
const HELD: [&str; 3] = ["README", "clustertracing-agent", "restored"];

thread_local!(static ORIGINALS: OnceCell<Vec<Standing>> = const { OnceCell::new() });

/// The person's command: whether it ends with 0, and what it says.
async fn run(world: &Rc<World>, dry_run: bool) -> (bool, String) {
    let said = RefCell::new(String::new());
    let say = |line: &str| {
        said.borrow_mut().push_str(line);
        said.borrow_mut().push('\n');
    };
    let serves = restore(|access| world.access(access), dry_run, say).await.unwrap();
    (serves, said.into_inner())
}

/// The same, until it dies if the world says so; nothing if it did.
async fn run_or_die(world: &Rc<World>) -> Option<bool> {
    match AssertUnwindSafe(run(world, false)).catch_unwind().await {
        Ok((serves, _)) => Some(serves),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => resume_unwind(cause),
    }
}

/// A second rate, which is a change from one edit of ours to another.
fn other_rate(grant: i64) -> NodeTracing {
    mk_object(mk_settings(State::Enabled, 250_000), grant)
}

/// The node is as it was before us, and is kept so against `object`, which would trace it.
async fn assert_restored(world: &Rc<World>, context: &str) {
    let originals = ORIGINALS.with(|originals| originals.get_or_init(|| World::new().manifests()).clone());
    assert_eq!(world.manifests(), originals, "{context}");
    world.settle();
    let mut agent = mk_agent(world).await;
    let mut status = agent.turn(&on(99), Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    // what ended before is reported first
    if let Some(outcome) = &status.last_outcome {
        agent.reported(outcome).await.unwrap();
        status = agent.turn(&on(99), Some("uid"), async |_, _| Ok(Some(jiff::Timestamp::MAX)), |_| {}).await.unwrap();
    }
    assert_eq!(world.manifests(), originals, "{context}: the change was put in again");
    let held = (Verdict::Refused, Some(Reason::RestoredByHand));
    assert_eq!(status.preflight.map(|p| (p.verdict, p.reason)), Some(held), "{context}");
    assert_eq!(status.drift, vec![], "{context}");
    assert!(world.ours().iter().all(|name| HELD.contains(&name.as_str())), "{:?} {context}", world.ours());
    assert!(world.state("restored").exists(), "{context}");
}

#[tokio::test]
async fn a_traced_node_gets_its_originals_back_and_stays_so_until_a_person_says_otherwise() {
    let world = mk_reached(&[on(1)]).await;
    let (serves, said) = run(&world, false).await;
    assert!(serves, "{said}");
    for file in World::new().manifests() {
        assert!(said.contains(&format!("will be  sha256 {}, mode 640, as it was kept", file.digest)), "{said}");
    }
    assert!(said.contains("rm /etc/kubernetes/clustertracing/restored"), "{said}");
    assert_restored(&world, "restored").await;

    // As the message says.
    let traced = world.fork();
    fs::remove_file(traced.state("restored")).unwrap();
    let mut object = on(100);
    live(&traced, &mut object).await;
    assert_eq!(result(&object), (OutcomeResult::Succeeded, None));
    assert_eq!(traced.manifests(), mk_reached(&[on(1)]).await.manifests());

    live(&world, &mut off(100)).await;
    assert_eq!((world.manifests(), world.ours()), (World::new().manifests(), vec![]), "everything has gone after off");
}

#[tokio::test]
async fn a_node_with_nothing_of_ours_is_left_alone() {
    let world = World::new();
    let effects = world.effects.get();
    assert!(run(&world, false).await.0);
    assert_eq!((world.effects.get(), world.ours()), (effects, vec![]));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let world = mk_reached(&[on(1)]).await;
    let (effects, ours) = (world.effects.get(), world.ours());
    let (possible, said) = run(&world, true).await;
    assert!(possible);
    for (was, is) in World::new().manifests().iter().zip(world.manifests()) {
        assert!(said.contains(&was.digest) && said.contains(&is.digest), "{said}");
    }
    assert_eq!((world.effects.get(), world.ours()), (effects, ours));
}

#[tokio::test]
async fn a_second_restore_finds_everything_done() {
    let world = mk_reached(&[on(1)]).await;
    assert!(run(&world, false).await.0);
    let (effects, pids) = (world.effects.get(), world.pids());
    assert!(run(&world, false).await.0);
    assert_eq!((world.effects.get(), world.pids(), world.ours()), (effects, pids, HELD.map(str::to_owned).to_vec()));
}

#[tokio::test]
async fn traced_processes_that_do_not_answer_or_end_at_once_are_no_obstacle() {
    for fate in [Fate::Silent, Fate::Exits] {
        let world = mk_reached(&[on(1)]).await;
        world.fate.set(fate);
        world.pass(30_000);
        let start = world.seconds();
        assert!(run(&world, false).await.0, "{fate:?}");
        let spent = world.seconds() - start;
        assert!(spent < 30, "{fate:?}: {spent} s");
        assert_restored(&world, &format!("{fate:?}")).await;
    }
}

#[tokio::test]
async fn it_ends_with_a_failure_when_the_originals_do_not_serve() {
    let world = mk_reached(&[on(1)]).await;
    world.kubelet_works.set(false);
    let (serves, said) = run(&world, false).await;
    assert!(!serves && said.contains("The original manifests are in place, but "), "{said}");
    assert_eq!(world.manifests(), World::new().manifests());
    world.kubelet_works.set(true);
    world.pass(60_000);
    assert!(run(&world, false).await.0, "asked again");
}

/// Every kind of death in turn: each moment has its own.
fn fault_at(number: usize) -> Fault {
    if number.is_multiple_of(2) { Fault::Crash } else { Fault::PowerCut }
}

/// Leaves the change to `object` behind at every `step`th of its effects, and has a person restore the node.
async fn is_taken_back(before: &[NodeTracing], object: &NodeTracing, step: usize) -> usize {
    let start = mk_reached(before).await;
    for number in 0.. {
        let (world, mut object) = (start.fork(), object.clone());
        world.fault.set(Some((number * step, fault_at(number))));
        let died = live_or_die(&world, &mut object).await;
        world.fault.set(None);
        world.pass(10_000);
        let (serves, said) = run(&world, false).await;
        let context = format!("{:?} before effect {}: {said}", fault_at(number), number * step);
        assert!(serves, "{context}");
        assert_eq!(said.contains("will be"), said.contains("Nobody else"), "{context}: what is done is said before");
        if world.state("restored").exists() {
            assert_restored(&world, &context).await;
        } else {
            assert_eq!((world.manifests(), said.lines().count()), (start.manifests(), 1), "{context}: nothing was begun");
        }
        if !died {
            return number;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_change_that_was_left_behind_at_any_effect_is_taken_back() {
    let tried = is_taken_back(&[], &on(1), 1).await;
    assert!(tried >= 40, "only {tried} moments were tried");
}

#[tokio::test]
async fn a_change_from_one_rate_to_another_is_taken_back_to_the_originals() {
    let tried = is_taken_back(&[on(1)], &other_rate(2), 3).await;
    assert!(tried >= 8, "only {tried} moments were tried");
}

#[tokio::test]
async fn a_crash_or_a_power_cut_at_any_effect_of_it_is_made_good_by_the_next_one() {
    let reached = mk_reached(&[on(1)]).await;
    for number in 0.. {
        let world = reached.fork();
        world.fault.set(Some((number, fault_at(number))));
        let ended = run_or_die(&world).await;
        world.fault.set(None);
        world.pass(10_000);
        let context = format!("{:?} before effect {number}", fault_at(number));
        // the next one is the command again, or the agent, or the watchdog
        if number % 4 < 2 {
            assert_eq!(run_or_die(&world).await, Some(true), "{context}");
        } else {
            live(&world, &mut on(7)).await;
        }
        if world.state("restored").exists() {
            assert_restored(&world, &context).await;
        } else {
            assert!(number <= 2 && world.manifests() == reached.manifests(), "{context}: the request was on the disk");
        }
        if ended.is_some() {
            assert!(number >= 25, "only {number} moments were tried");
            return;
        }
    }
}

#[tokio::test]
async fn a_disk_that_fails_during_it_leaves_a_node_that_the_next_one_restores() {
    let reached = mk_reached(&[on(1)]).await;
    let originals = World::new().manifests();
    for number in 0..30 {
        let world = reached.fork();
        let fault = if number % 2 == 0 { Fault::Once(ENOSPC) } else { Fault::FromNowOn(EROFS) };
        world.fault.set(Some((number, fault)));
        let ended = restore(|access| world.access(access), false, |_| {}).await;
        let context = format!("{fault:?} at effect {number}: {}", world.trace.borrow().join(", "));
        if ended.as_ref().is_ok_and(|serves| *serves) {
            assert_eq!(world.manifests(), originals, "{context}");
        }
        world.fault.set(None);
        world.pass(10_000);
        assert!(run(&world, false).await.0, "{context}");
        assert_restored(&world, &context).await;
    }
}

#[tokio::test]
async fn a_request_is_heard_at_any_effect_of_a_change_by_the_agent_that_makes_it() {
    let reached = mk_reached(&[on(1)]).await;
    let trace = reached.trace.borrow().clone();
    for (number, effect) in trace.into_iter().enumerate() {
        let (world, mut object) = (World::new(), on(1));
        let (request, effects) = (world.state("recall"), RefCell::new(0));
        *world.before_effect.borrow_mut() = Some(Box::new(move |_| {
            if effects.replace_with(|n| *n + 1) == number {
                fs::write(&request, "").unwrap();
            }
        }));
        live(&world, &mut object).await;
        world.before_effect.take();
        // the agent's next look, where the change had ended before
        mk_agent(&world).await.heed_recall().await.unwrap();
        let context = format!("asked before effect {number}, {effect}");
        assert_eq!(world.manifests(), World::new().manifests(), "{context}");
        assert!(matches!(result(&object).1, None | Some(Reason::RestoredByHand)), "{:?}, {context}", result(&object));
        if object.status.as_ref().unwrap().last_outcome.as_ref().is_some_and(|o| o.result == OutcomeResult::RolledBack) {
            assert!(outcome(&object).message.contains("a person"), "{context}");
        }
        assert_restored(&world, &context).await;
    }
}

#[tokio::test]
async fn an_agent_that_lives_does_it_and_the_command_waits_for_it() {
    let world = mk_reached(&[on(1)]).await;
    let mut agent = mk_agent(&world).await;
    assert!(world.access(Access::Locked).is_err(), "it has the lock");
    let lives = async {
        loop {
            agent.heed_recall().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (serves, said) = tokio::select! {
        ended = run(&world, false) => ended,
        () = lives => unreachable!(),
    };
    assert!(serves && said.contains("was asked to do it"), "{said}");
    drop(agent);
    assert_restored(&world, "by the agent").await;
}

#[tokio::test]
async fn an_agent_that_hears_nothing_is_named_and_whoever_comes_next_does_it() {
    let world = mk_reached(&[on(1)]).await;
    let agent = RefCell::new(Some(mk_agent(&world).await));
    let said = RefCell::new(Vec::new());
    let say = |line: &str| {
        said.borrow_mut().push(line.to_owned());
        // the person does as he is told
        if line.contains("It has not begun yet") {
            drop(agent.take());
        }
    };
    assert!(restore(|access| world.access(access), false, say).await.unwrap(), "{said:?}");
    assert!(said.borrow().iter().any(|line| line.contains("this command does it")), "{said:?}");
    assert_restored(&world, "alone").await;
}

#[tokio::test]
async fn what_the_owner_changed_in_a_manifest_stays_there_when_ours_is_taken_out() {
    let world = mk_reached(&[on(1)]).await;
    let mine = |bytes: Vec<u8>| [bytes, b"# mine\n".to_vec()].concat();
    fs::write(world.path_of("etcd.yaml"), mine(world.manifest("etcd.yaml"))).unwrap();
    world.pass(30_000);
    let (serves, said) = run(&world, false).await;
    assert!(serves && said.contains("with what else was changed in it since"), "{said}");
    assert_eq!(world.manifest("etcd.yaml"), mine(World::new().manifest("etcd.yaml")));
    assert_eq!(world.manifest("kube-apiserver.yaml"), World::new().manifest("kube-apiserver.yaml"));
}

#[tokio::test]
async fn a_manifest_that_somebody_writes_at_the_same_time_is_not_overwritten() {
    let world = mk_reached(&[on(1)]).await;
    // right before the first manifest is taken away
    *world.rival.borrow_mut() = Some((
        0,
        Box::new(|folder| {
            let path = folder.join("etcd.yaml");
            fs::write(&path, [fs::read(&path).unwrap(), b"# mine\n".to_vec()].concat()).unwrap();
        }),
    ));
    assert!(run(&world, false).await.0);
    assert_eq!(world.manifest("etcd.yaml"), [World::new().manifest("etcd.yaml"), b"# mine\n".to_vec()].concat());
    assert_eq!(world.manifest("kube-apiserver.yaml"), World::new().manifest("kube-apiserver.yaml"));
}

#[tokio::test]
async fn a_manifest_that_cannot_be_told_from_somebody_elses_is_left_and_a_person_is_told_what_to_compare() {
    let strip = |text: String| {
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("clustertracing.dev/added")).collect();
        lines.join("\n") + "\n"
    };
    let spoilt: [(&str, &dyn Fn(String) -> String); 2] = [("carries tracing flags", &strip), ("etcd.yaml", &|_| "kind: [".to_owned())];
    for (words, spoil) in spoilt {
        let world = mk_reached(&[on(1)]).await;
        let text = String::from_utf8(world.manifest("etcd.yaml")).unwrap();
        fs::write(world.path_of("etcd.yaml"), spoil(text)).unwrap();
        let (before, effects) = (world.manifests(), world.effects.get());
        let (serves, said) = run(&world, false).await;
        assert!(!serves && said.contains(words) && said.contains("/README"), "{said}");
        assert_eq!((world.manifests(), world.effects.get()), (before, effects), "nothing was written: {said}");
    }
}

#[tokio::test]
async fn the_backup_and_the_journal_are_not_needed_where_the_manifests_tell() {
    type Spoil = fn(&World);
    let spoilt: [(&str, Spoil); 4] = [
        ("no backup", |w| fs::remove_dir_all(w.state("backup")).unwrap()),
        ("a damaged backup", |w| fs::write(w.state("backup/etcd.yaml"), "").unwrap()),
        ("a damaged journal", |w| fs::write(w.state("journal"), "clustertracing-journal 2 0000\n{}\n").unwrap()),
        ("no record", |w| fs::write(w.state("applied"), "").unwrap()),
    ];
    for (name, spoil) in spoilt {
        let world = mk_reached(&[on(1)]).await;
        spoil(&world);
        let (serves, said) = run(&world, false).await;
        assert!(serves, "{name}: {said}");
        assert_restored(&world, name).await;
    }
}

#[tokio::test]
async fn a_manifest_that_is_away_and_has_no_journal_comes_from_its_backup_if_that_is_what_was_kept() {
    let reached = mk_reached(&[on(1)]).await;
    let away = reached.trace.borrow().iter().position(|effect| effect.starts_with("rename manifests/.etcd.yaml")).unwrap() + 1;
    for damaged in [false, true] {
        let (world, mut object) = (World::new(), on(1));
        world.fault.set(Some((away, Fault::Crash)));
        assert!(live_or_die(&world, &mut object).await);
        world.fault.set(None);
        fs::write(world.state("journal"), "not what was written").unwrap();
        assert!(FILES.iter().all(|file| !world.path_of(file).exists()), "both are away");
        if damaged {
            fs::write(world.state("backup/etcd.yaml"), World::new().manifest("kube-apiserver.yaml")).unwrap();
        }
        let (serves, said) = run(&world, false).await;
        assert_eq!(serves, !damaged, "{said}");
        if damaged {
            assert!(said.contains("its digest is another one than the README's") && said.contains(".etcd.yaml.*"), "{said}");
            assert!(FILES.iter().all(|file| !world.path_of(file).exists()), "nothing is guessed");
            // The person puts the right bytes there, and asks again.
            fs::write(world.state("backup/etcd.yaml"), World::new().manifest("etcd.yaml")).unwrap();
            assert!(run(&world, false).await.0);
        }
        assert_restored(&world, &format!("damaged {damaged}")).await;
    }
}

#[tokio::test]
async fn nothing_is_done_while_kubeadm_writes_manifests() {
    let world = mk_reached(&[on(1)]).await;
    let before = world.manifests();
    world.kubeadm_runs.set(true);
    let (serves, said) = run(&world, false).await;
    assert!(!serves && said.contains("kubeadm"), "{said}");
    assert_eq!(world.manifests(), before);
}

#[tokio::test]
async fn the_readme_names_the_edited_files_their_digests_and_the_command_and_the_program_lies_beside_it() {
    let world = mk_reached(&[on(1)]).await;
    let readme = fs::read_to_string(world.state("README")).unwrap();
    for file in FILES {
        let line = format!("{}  backup/{file}\n", sha256_hex(&World::new().manifest(file)));
        assert!(readme.contains(&line), "{readme}");
    }
    assert!(readme.contains("    /etc/kubernetes/clustertracing/clustertracing-agent restore\n"), "{readme}");
    assert!(world.state("clustertracing-agent").exists());
}
