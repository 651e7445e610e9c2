//! The table of what is drift and who made it, and the rules of healing.

use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::agent::applied::Applied;
use crate::agent::blockers;
use crate::agent::facts::TracingFile;
use crate::agent::facts::tests::{mk_facts, mk_trouble};
use crate::api::node_tracing::{ComponentSettings, NodeSettings, ReceiverKind, sha256_hex};
use crate::api::{State, Target};
use crate::component::{change, find};

const APISERVER: &str = "kube-apiserver.yaml";
const ETCD: &str = "etcd.yaml";

fn mk_target() -> Target {
    let enabled = |rate| ComponentSettings { state: State::Enabled, sampling_rate_per_million: rate };
    let settings = NodeSettings {
        endpoint: "127.0.0.1:4317".into(),
        receiver: ReceiverKind::NodeCollector,
        kube_api_server: enabled(10_000),
        etcd: enabled(0),
        watch_termination_grace_seconds: 0,
        health_timeout_seconds: 120,
    };
    Target { revision: settings.revision(), settings }
}

fn changes_of(facts: &Facts) -> Vec<Change> {
    change(&facts.files(), &mk_target().settings, "cp-1").unwrap()
}

/// Gives a manifest another text, as if it had been there for ever.
fn write(facts: &mut Facts, file: &str, text: String) {
    let manifest = facts.manifests.iter_mut().find(|m| m.file.name == file).unwrap();
    manifest.digest = sha256_hex(text.as_bytes());
    manifest.file.text = text;
    let found = find(&facts.files());
    facts.trouble = found.as_ref().err().cloned().map(Into::into);
    let found = found.unwrap_or_default();
    facts.components.retain(|c| found.iter().any(|f| f.component == c.found.component));
    for component in &mut facts.components {
        component.found = found.iter().find(|f| f.component == component.found.component).unwrap().clone();
    }
}

fn text(facts: &Facts, file: &str) -> String {
    facts.manifest(file).unwrap().file.text.clone()
}

/// A node that has the target, with its record.
fn mk_applied() -> (Applied, Facts) {
    static REACHED: LazyLock<(Applied, Facts)> = LazyLock::new(reach);
    REACHED.clone()
}

fn reach() -> (Applied, Facts) {
    let mut facts = mk_facts();
    for change in changes_of(&facts) {
        write(&mut facts, &change.file, change.after.clone());
        let file = |(path, contents): &(String, String)| TracingFile {
            name: path.rsplit('/').next().unwrap().to_owned(),
            digest: sha256_hex(contents.as_bytes()),
            is_empty: false,
            mode: TRACING_FILE_MODE,
        };
        facts.tracing_files.extend(change.needs.iter().map(file));
    }
    let applied = Applied::default().follow(&mk_target(), &facts, Some(&changes_of(&facts)));
    assert_eq!(applied.components.len(), 2);
    (applied, facts)
}

fn rendered(component: &str) -> String {
    mk_facts().manifests.iter().find(|m| m.file.name == component).unwrap().file.text.clone()
}

fn without(text: &str, line: &str) -> String {
    assert!(text.contains(line), "{line} in {text}");
    text.split_inclusive('\n').filter(|l| !l.contains(line)).collect()
}

#[test]
fn every_kind_of_drift_is_named_with_its_file_and_its_cause() {
    type Found = [(&'static str, Deviation, DriftCause)];
    type Case = (&'static str, fn(&mut Facts), &'static Found);
    use Deviation::{Content, Empty, Missing, Mode, Owner};
    use DriftCause::{Human, KubeadmRender, Upgrade};
    let (applied, reached) = mk_applied();
    let tracing_file = reached.tracing_files[0].name.clone();
    let cases: &[Case] = &[
        ("nothing", |_| {}, &[]),
        ("kubeadm rendered etcd anew", |f| write(f, ETCD, rendered(ETCD)), &[(ETCD, Content, KubeadmRender)]),
        (
            "kubeadm upgraded both",
            |f| {
                write(f, ETCD, rendered(ETCD).replace("3.6.8-0", "3.7.1-0"));
                write(f, APISERVER, rendered(APISERVER).replace("v1.36.3", "v1.37.1"));
            },
            &[(APISERVER, Content, Upgrade), (ETCD, Content, Upgrade)],
        ),
        (
            "a person took one of our flags out",
            |f| write(f, ETCD, without(&text(f, ETCD), "--distributed-tracing-instance-id")),
            &[(ETCD, Content, Human)],
        ),
        (
            "a person took our additions out, and left a comment",
            |f| write(f, ETCD, format!("# no tracing here\n{}", rendered(ETCD))),
            &[(ETCD, Content, Human)],
        ),
        (
            "a person took our note alone out",
            |f| write(f, APISERVER, without(&text(f, APISERVER), "clustertracing.dev/added")),
            &[(APISERVER, Content, Human)],
        ),
        ("0 bytes", |f| write(f, ETCD, String::new()), &[(ETCD, Empty, Human)]),
        ("no YAML", |f| write(f, ETCD, "kind: [".into()), &[(ETCD, Content, Human)]),
        (
            "the manifest has gone",
            |f| {
                f.manifests.retain(|m| m.file.name != ETCD);
                f.components.pop();
            },
            &[(ETCD, Missing, Human)],
        ),
        ("another mode", |f| f.manifests[0].permissions.mode = 0o666, &[(APISERVER, Mode, Human)]),
        ("another owner", |f| f.manifests[1].permissions.uid = 1000, &[(ETCD, Owner, Human)]),
        ("another group", |f| f.manifests[1].permissions.gid = 1000, &[(ETCD, Owner, Human)]),
        (
            "another mode and owner",
            |f| f.manifests[1].permissions = Permissions { mode: 0o644, uid: 1, gid: 1 },
            &[(ETCD, Mode, Human), (ETCD, Owner, Human)],
        ),
        ("no tracing file", |f| f.tracing_files.clear(), &[("tracing file", Missing, Human)]),
        ("another tracing file", |f| f.tracing_files[0].digest = sha256_hex(b"mine"), &[("tracing file", Content, Human)]),
        ("an empty tracing file", |f| f.tracing_files[0].is_empty = true, &[("tracing file", Empty, Human)]),
        ("a tracing file that nobody may read", |f| f.tracing_files[0].mode = 0o600, &[("tracing file", Mode, Human)]),
        (
            "a new manifest decides about its mode and its files",
            |f| {
                write(f, APISERVER, rendered(APISERVER));
                f.manifests[0].permissions.mode = 0o644;
                f.tracing_files.clear();
            },
            &[(APISERVER, Content, KubeadmRender)],
        ),
        (
            "the manifests could not be seen",
            |f| {
                f.manifests.clear();
                f.components.clear();
                f.trouble = Some(mk_trouble());
            },
            &[],
        ),
    ];
    for (name, spoil, expected) in cases {
        let mut facts = reached.clone();
        spoil(&mut facts);
        let found: Vec<_> = drift(&applied, &facts).into_iter().map(|d| (d.file, d.what, d.cause)).collect();
        let file = |file: &&str| if *file == "tracing file" { tracing_file.clone() } else { (*file).to_owned() };
        let expected: Vec<_> = expected.iter().map(|(f, what, cause)| (file(f), *what, *cause)).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_person_may_change_a_manifest_as_long_as_our_additions_stay() {
    let (applied, mut facts) = mk_applied();
    let edited = text(&facts, ETCD).replace("    - --snapshot-count=10000\n", "    - --snapshot-count=5000\n");
    write(&mut facts, ETCD, edited);
    let followed = applied.clone().follow(&mk_target(), &facts, Some(&changes_of(&facts)));
    assert_ne!(followed, applied);
    assert_eq!(drift(&followed, &facts), []);
    assert_eq!(followed.clone().follow(&mk_target(), &facts, Some(&changes_of(&facts))), followed, "and that is all");
}

#[test]
fn what_is_switched_off_cannot_drift() {
    let (applied, mut facts) = mk_applied();
    let mut target = mk_target();
    target.settings.etcd.state = State::Disabled;
    write(&mut facts, ETCD, rendered(ETCD));
    let applied = applied.follow(&target, &facts, change(&facts.files(), &target.settings, "cp-1").ok().as_deref());
    assert_eq!(drift(&applied, &facts), []);
    assert!(applied.entry(ComponentName::Etcd).is_none() && applied.entry(ComponentName::KubeApiserver).is_some());
}

#[test]
fn a_manifest_that_has_gone_is_refused_with_the_commands_that_bring_it_back() {
    let (applied, mut facts) = mk_applied();
    facts.manifests.retain(|m| m.file.name != ETCD);
    facts.components.pop();
    let trouble = gone(&drift(&applied, &facts), &applied).unwrap();
    assert_eq!(trouble.reason, Reason::ManifestNotFound);
    for part in ["cp /etc/kubernetes/clustertracing/backup/etcd.yaml ", r#"{"spec":{"etcd":{"state":"Disabled"}}}"#] {
        assert!(trouble.message.contains(part), "{}", trouble.message);
    }
    let (applied, mut facts) = mk_applied();
    facts.tracing_files.clear();
    assert_eq!(gone(&drift(&applied, &facts), &applied), None, "a tracing file that has gone is written again");
}

#[test]
fn nothing_is_healed_while_somebody_is_at_work() {
    let (applied, mut facts) = mk_applied();
    let own = facts.now.wall;
    let blockers = |facts: &Facts| {
        let found = blockers::blockers(facts, &drift(&applied, facts), Duration::from_mins(2), Some(own), &[]);
        found.into_iter().map(|b| (b.reason, b.message)).collect::<Vec<_>>()
    };
    facts.now.wall += SignedDuration::from_secs(30);
    facts.manifests[1].changed = facts.now.wall;
    assert_eq!(blockers(&facts)[0].0, Reason::UpgradeInProgress, "nothing has drifted");
    write(&mut facts, ETCD, rendered(ETCD));
    let [(reason, message)] = &blockers(&facts)[..] else { panic!("one") };
    assert!(*reason == Reason::WaitingForQuiet && message.contains(ETCD), "{message}");
    facts.now.wall += SignedDuration::from_mins(2);
    assert_eq!(blockers(&facts), []);
    facts.kubeadm_runs = true;
    let [(reason, message)] = &blockers(&facts)[..] else { panic!("one") };
    assert!(*reason == Reason::WaitingForQuiet && message.contains("kubeadm"), "{message}");
}

#[test]
fn a_second_drift_soon_after_a_heal_is_a_conflict_until_a_new_generation() {
    let grant = |generation| Grant { id: 9, revision: mk_target().revision, generation, attempt: 1, measured_after: None };
    for (minutes_after, is_fight) in [(9, true), (11, false)] {
        let (applied, mut facts) = mk_applied();
        let healed = applied.after_mend(&[ComponentName::Etcd], 3, facts.now.wall);
        facts.now.wall += SignedDuration::from_mins(minutes_after);
        write(&mut facts, ETCD, rendered(ETCD));
        let noted = healed.clone().note(&drift(&healed, &facts), facts.now.wall);
        // The time of the drift counts, and not how long it has been left alone since.
        facts.now.wall += SignedDuration::from_hours(1);
        let drifts = drift(&noted, &facts);
        assert_eq!(drifts[0].healed_generation, is_fight.then_some(3), "{minutes_after} min");
        assert_eq!(refusal(&drifts, &grant(3)).map(|t| t.reason), is_fight.then_some(Reason::Conflict));
        assert_eq!(refusal(&drifts, &grant(4)), None);
        // Another component's drift is no fight.
        write(&mut facts, ETCD, text(&mk_applied().1, ETCD));
        write(&mut facts, APISERVER, rendered(APISERVER));
        assert_eq!(refusal(&drift(&noted, &facts), &grant(3)), None);
    }
}

#[test]
fn what_needs_no_restart_is_mended_and_what_does_is_not() {
    let (applied, mut facts) = mk_applied();
    facts.tracing_files.clear();
    write(&mut facts, ETCD, rendered(ETCD));
    let mends = mends(&drift(&applied, &facts), &applied, &changes_of(&facts));
    let [mend] = &mends[..] else { panic!("{mends:?}") };
    assert_eq!((mend.component, &mend.manifest.0[..]), (ComponentName::KubeApiserver, APISERVER));
    assert_eq!(mend.needs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), [applied.components[0].needs[0].0.clone()]);
}

/// What somebody may do to etcd's manifest.
#[derive(Clone, Debug)]
enum Edit {
    /// A flag of their own, at the end of the command.
    Flag(u8),
    /// A comment above everything.
    Comment(u8),
    /// One of our flags goes, or our note.
    Take(usize),
    /// Everything as kubeadm renders it.
    Render,
    /// Another image.
    Image(u8),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (0..3_u8).prop_map(Edit::Flag),
        (0..3_u8).prop_map(Edit::Comment),
        (0..3_usize).prop_map(Edit::Take),
        Just(Edit::Render),
        (4..9_u8).prop_map(Edit::Image),
    ];
    prop::collection::vec(edit, 0..5)
}

/// The text after the edits, and its owner's text: the same edits of a manifest that never carried anything of ours.
fn edited(ours: &str, edits: &[Edit]) -> (String, String) {
    let (mut text, mut owners) = (ours.to_owned(), rendered(ETCD));
    for edit in edits {
        match edit {
            Edit::Flag(n) => {
                for text in [&mut text, &mut owners] {
                    let last = text.lines().rfind(|line| line.starts_with("    - --")).unwrap().to_owned();
                    *text = text.replacen(&last, &format!("{last}\n    - --max-snapshots={n}"), 1);
                }
            }
            Edit::Comment(n) => {
                for text in [&mut text, &mut owners] {
                    *text = format!("# {n}\n{text}");
                }
            }
            Edit::Take(n) => {
                let marks = ["--enable-distributed-tracing", "--distributed-tracing-address", "--distributed-tracing-sampling-rate"];
                text = text.split_inclusive('\n').filter(|line| !line.contains(marks[*n])).collect();
            }
            Edit::Render => (text, owners) = (rendered(ETCD), rendered(ETCD)),
            Edit::Image(n) => {
                for text in [&mut text, &mut owners] {
                    let image = text.lines().find(|line| line.trim_start().starts_with("image:")).unwrap().to_owned();
                    *text = text.replacen(&image, &format!("    image: registry.k8s.io/etcd:3.6.{n}-0"), 1);
                }
            }
        }
    }
    (text, owners)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_edited_is_named_and_a_heal_gives_the_owners_text_with_our_additions(edits in edits()) {
        let (applied, mut facts) = mk_applied();
        let (now, owners) = edited(&text(&facts, ETCD), &edits);
        write(&mut facts, ETCD, now.clone());
        let changes = changes_of(&facts);
        let change = &changes[1];
        let followed = applied.clone().follow(&mk_target(), &facts, Some(&changes));
        let found: Vec<_> = drift(&followed, &facts).into_iter().map(|d| (d.file, d.what, d.cause)).collect();

        let since_render = edits.iter().rposition(|e| matches!(e, Edit::Render));
        let left = &edits[since_render.map_or(0, |at| at + 1)..];
        let complete = since_render.is_none() && !left.iter().any(|e| matches!(e, Edit::Take(_)));
        let other_image = left.iter().rev().find_map(|e| if let Edit::Image(n) = e { Some(*n) } else { None }).is_some_and(|n| n != 8);
        let others = left.iter().any(|e| matches!(e, Edit::Flag(_) | Edit::Comment(_)));
        let expected = match () {
            () if complete => vec![],
            () if other_image => vec![(ETCD.to_owned(), Deviation::Content, DriftCause::Upgrade)],
            () if since_render.is_some() && !others => vec![(ETCD.to_owned(), Deviation::Content, DriftCause::KubeadmRender)],
            () => vec![(ETCD.to_owned(), Deviation::Content, DriftCause::Human)],
        };
        prop_assert_eq!(found, expected, "{}", now);
        prop_assert_eq!(&change.original, &owners, "what off gives back, and what is backed up, is the owner's text");

        // The heal is the function of the owner's text that a first rollout is.
        let mut fresh = mk_facts();
        write(&mut fresh, ETCD, owners);
        let first = &changes_of(&fresh)[1].after;
        if complete {
            prop_assert!(change.is_made());
        } else {
            prop_assert_eq!(&change.after, first);
        }
    }
}
