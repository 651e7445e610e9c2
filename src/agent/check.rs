//! Whether a target can be reached from here, and whether a grant is to be acted on. Pure.

use super::applied::Applied;
use super::drift::{self, Mend};
use super::facts::{ComponentFacts, Facts, Trouble};
use super::machine::{Flight, Held, Phase, Swap, Version, outcome};
use super::watchdog::Guard;
use crate::api::node_tracing::{Blocker, Outcome, OutcomeResult, Preflight, Verdict};
use crate::api::{Drift, Grant, NodeTracing, Reason, Target};
use crate::component::{Change, STATE_DIR, change};
use crate::host::Now;

/// What the check of a target found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Manifests and processes match the target.
    Unchanged {
        /// What an administrator should know all the same.
        warnings: Vec<String>,
    },
    /// The target can be reached.
    Ready {
        /// By these changes.
        changes: Vec<Change>,
        /// By putting these right first, which restarts nothing.
        mends: Vec<Mend>,
        /// What an administrator should know all the same.
        warnings: Vec<String>,
    },
    /// The target cannot be reached from here.
    Refused(Trouble),
}

/// What a target asks of each component, or why nobody can say.
pub fn wanted(target: &Target, facts: &Facts, node_name: &str) -> Result<Vec<Change>, Trouble> {
    if let Some(trouble) = &facts.trouble {
        return Err(trouble.clone());
    }
    if target.settings.revision() != target.revision {
        let message = format!("revision {} does not name its settings; they were not written by the controller", target.revision);
        return Err(Trouble { reason: Reason::InvalidSettings, message });
    }
    Ok(change(&facts.files(), &target.settings, node_name)?)
}

/// Checks what is [`wanted`], and what has drifted, against the node.
pub fn check(wanted: Result<Vec<Change>, Trouble>, drifts: &[Drift], applied: &Applied, facts: &Facts) -> Checked {
    if let Some(gone) = drift::gone(drifts, applied).filter(|_| facts.trouble.is_none()) {
        return Checked::Refused(gone);
    }
    let changes = match wanted {
        Ok(changes) => changes,
        Err(trouble) => return Checked::Refused(trouble),
    };
    let mut warnings: Vec<_> = changes.iter().flat_map(|c| c.warnings.clone()).collect();
    warnings.dedup();
    let mends = drift::mends(drifts, applied, &changes);
    if let Some(taken) = facts.receiver.refusal() {
        return Checked::Refused(taken);
    }
    if !mends.is_empty() || !changes.iter().all(Change::is_made) {
        return Checked::Ready { changes: changes.into_iter().filter(|c| !c.is_made()).collect(), mends, warnings };
    }
    let waiting = changes.iter().find(|c| facts.component(c.component).is_none_or(|f| f.process(&c.argv).is_none()));
    match waiting {
        None => Checked::Unchanged { warnings },
        Some(change) => Checked::Refused(not_running(change)),
    }
}

/// What the node's status says of the check.
pub fn preflight(target: &Target, checked: &Checked) -> Preflight {
    let mut preflight = Preflight {
        revision: target.revision.clone(),
        verdict: Verdict::Unchanged,
        changes: Vec::new(),
        reason: None,
        message: String::new(),
    };
    match checked {
        Checked::Unchanged { warnings } => preflight.message = warnings.join("; "),
        Checked::Ready { changes, warnings, .. } => {
            preflight.message = warnings.join("; ");
            preflight.verdict = Verdict::Ready;
            preflight.changes = changes.iter().map(|c| c.component).collect();
        }
        Checked::Refused(trouble) => {
            preflight.verdict = Verdict::Refused;
            preflight.reason = Some(trouble.reason);
            preflight.message.clone_from(&trouble.message);
        }
    }
    preflight
}

/// What a grant leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It ends here, and nothing is written.
    End(Outcome),
    /// The node's components are not as they have to be, as while somebody else restarts them, or a port has been taken since the grant was
    /// given. That may pass: the grant stays.
    Wait(Blocker),
    /// Files are put right, and nothing restarts.
    Mend(Vec<Mend>),
    /// The change starts.
    Fly(Box<Flight>),
}

/// The grant of `object`, if it is to be acted on: for this very node, for the target as it is, and newer than `used`.
pub fn valid_grant<'a>(object: &'a NodeTracing, node_uid: &str, used: Option<i64>) -> Result<&'a Grant, &'static str> {
    let grant = object.spec.grant.as_ref().ok_or("there is no grant")?;
    let target = object.spec.target.as_ref().ok_or("there is no target")?;
    let reported = object.status.as_ref().and_then(|s| s.last_outcome.as_ref()).map(|o| o.grant);
    if object.metadata.deletion_timestamp.is_some() {
        return Err("the object is being deleted");
    }
    if object.spec.node_uid != node_uid {
        return Err("the grant is for an earlier node of this name");
    }
    if grant.revision != target.revision {
        return Err("the grant is for another target");
    }
    if used.max(reported).is_some_and(|last| grant.id <= last) {
        return Err("the grant has been used");
    }
    Ok(grant)
}

/// What a valid grant leads to.
pub fn decide(grant: &Grant, target: &Target, checked: &Checked, facts: &Facts) -> Decision {
    let end = |result, trouble: Option<Trouble>| {
        let (reason, message) = trouble.map_or((None, String::new()), |t| (Some(t.reason), t.message));
        Decision::End(outcome(grant, result, reason, message, 0, &facts.now))
    };
    let wait = |trouble: Trouble| Decision::Wait(Blocker { reason: trouble.reason, message: trouble.message });
    match checked {
        Checked::Unchanged { .. } => end(OutcomeResult::Succeeded, None),
        Checked::Refused(trouble) if [Reason::ComponentUnhealthy, Reason::PortTaken].contains(&trouble.reason) => wait(trouble.clone()),
        Checked::Refused(trouble) => end(OutcomeResult::Refused, Some(trouble.clone())),
        // what a restart may need is right before anything restarts: what is left to do takes another grant
        Checked::Ready { mends, .. } if !mends.is_empty() => Decision::Mend(mends.clone()),
        Checked::Ready { changes, .. } => match changes.iter().map(|change| swap(change, facts)).collect() {
            Err(trouble) => wait(trouble),
            Ok(swaps) => Decision::Fly(Box::new(Flight {
                grant: grant.clone(),
                boot_id: facts.now.boot_id.clone(),
                reboots: 0,
                interruptions: 0,
                // bounded again here: the API server's rules are not relied on
                health_timeout: u64::try_from(target.settings.health_timeout_seconds.clamp(10, 3600)).unwrap_or(10) * 1000,
                swaps,
                watchdog: None,
                begun: None,
                phase: Phase::Prepared,
            })),
        },
    }
}

/// The same, with a watchdog for the change; one that cannot have one does not start.
pub fn guarded(decision: Decision, guard: &Guard, now: &Now) -> Decision {
    let Decision::Fly(mut flight) = decision else { return decision };
    match guard.watchdog(flight.grant.id, now) {
        Ok(watchdog) => {
            flight.watchdog = watchdog;
            Decision::Fly(flight)
        }
        Err(trouble) => Decision::End(outcome(&flight.grant, OutcomeResult::Refused, Some(trouble.reason), trouble.message, 0, now)),
    }
}

/// Whether a grant that was valid when it was acted on still stands, now that the object was read again.
pub fn stands(acted_on: &Grant, target: &Target, object: &NodeTracing, node_uid: &str) -> Result<(), String> {
    let grant = valid_grant(object, node_uid, None)?;
    if grant != acted_on || object.spec.target.as_ref() != Some(target) {
        return Err("the grant or its target was changed meanwhile".to_owned());
    }
    Ok(())
}

fn swap(change: &Change, facts: &Facts) -> Result<Swap, Trouble> {
    let unhealthy = |what: &str| Trouble {
        reason: Reason::ComponentUnhealthy,
        message: format!("{} {what}; nothing was changed. See its log on the node: crictl logs, or /var/log/pods", change.component),
    };
    let Some(component) = facts.component(change.component) else { return Err(unhealthy("was not found")) };
    let Some(manifest) = facts.manifest(&change.file) else { return Err(unhealthy("has no manifest")) };
    let ComponentFacts { found, green, .. } = component;
    let Some(process) = component.process(&found.argv) else {
        return Err(unhealthy("does not run with the flags of its manifest"));
    };
    let probes: Vec<_> = change.probes.iter().filter(|p| green.contains(p)).cloned().collect();
    if probes.is_empty() {
        return Err(unhealthy("answers none of its own probes"));
    }
    Ok(Swap {
        component: change.component,
        file: change.file.clone(),
        permissions: manifest.permissions,
        before: Version { text: change.before.clone(), argv: found.argv.clone(), pod: process.pod.clone() },
        after: Version { text: change.after.clone(), argv: change.argv.clone(), pod: None },
        original: change.original.clone(),
        needs: needed(change)?,
        probes,
        held: Held::BEFORE,
        answered: false,
    })
}

/// The files that a manifest needs, by their names in our folder.
pub(super) fn needed(change: &Change) -> Result<Vec<(String, String)>, Trouble> {
    change.needs.iter().map(|(path, contents)| Ok((needed_name(path)?, contents.clone()))).collect()
}

/// The name in our folder of a file that a manifest needs. Another folder is never written to, whatever the component table says.
fn needed_name(path: &str) -> Result<String, Trouble> {
    let name =
        path.strip_prefix(STATE_DIR).and_then(|rest| rest.strip_prefix('/')).filter(|name| !name.contains('/') && !name.starts_with('.'));
    name.map(str::to_owned).ok_or_else(|| Trouble {
        reason: Reason::NodeFilesUnwritable,
        message: format!("{path} is outside {STATE_DIR}; nothing was changed"),
    })
}

fn not_running(change: &Change) -> Trouble {
    Trouble {
        reason: Reason::ComponentUnhealthy,
        message: format!("{} has the target's manifest, but does not (yet) run with its flags: see the kubelet's log", change.component),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::facts::tests::{mk_facts, mk_trouble};
    use crate::agent::receiver::Receiver;
    use crate::api::node_tracing::{ComponentSettings, NodeSettings, ReceiverKind};
    use crate::api::{ComponentName, State};
    use crate::host::{Holder, Listener};

    /// The check of a node that has never been changed.
    fn check(target: &Target, facts: &Facts, node_name: &str) -> Checked {
        super::check(wanted(target, facts, node_name), &[], &Applied::default(), facts)
    }

    fn mk_target() -> Target {
        let settings = NodeSettings {
            endpoint: "127.0.0.1:4317".into(),
            receiver: ReceiverKind::NodeCollector,
            kube_api_server: ComponentSettings { state: State::Enabled, sampling_rate_per_million: 10_000 },
            etcd: ComponentSettings { state: State::Enabled, sampling_rate_per_million: 0 },
            watch_termination_grace_seconds: 0,
            health_timeout_seconds: 120,
        };
        Target { revision: settings.revision(), settings }
    }

    fn mk_grant() -> Grant {
        Grant { id: 1, revision: mk_target().revision, generation: 1, attempt: 1, measured_after: None }
    }

    fn decided(facts: &Facts) -> Decision {
        decide(&mk_grant(), &mk_target(), &check(&mk_target(), &mk_facts(), "cp1"), facts)
    }

    #[test]
    fn trouble_on_the_node_and_settings_under_a_false_name_refuse_the_target() {
        let facts = Facts { trouble: Some(mk_trouble()), ..mk_facts() };
        assert_eq!(check(&mk_target(), &facts, "cp1"), Checked::Refused(mk_trouble()));
        let forged = Target { revision: "000000000000".into(), ..mk_target() };
        let Checked::Refused(trouble) = check(&forged, &mk_facts(), "cp1") else { panic!("it is refused") };
        assert_eq!(trouble.reason, Reason::InvalidSettings);
    }

    #[test]
    fn a_target_counts_as_reached_only_when_the_processes_run_it() {
        let mut settings = mk_target().settings;
        settings.kube_api_server.state = State::Disabled;
        settings.etcd.state = State::Disabled;
        let target = Target { revision: settings.revision(), settings };
        let mut facts = mk_facts();
        assert_eq!(preflight(&target, &check(&target, &facts, "cp1")).verdict, Verdict::Unchanged);
        facts.components[1].processes[0].argv.push("--experimental-flag".into());
        let preflight = preflight(&target, &check(&target, &facts, "cp1"));
        assert_eq!((preflight.verdict, preflight.reason), (Verdict::Refused, Some(Reason::ComponentUnhealthy)));
    }

    #[test]
    fn a_flight_carries_what_verification_and_the_way_back_need() {
        let mut facts = mk_facts();
        let red = facts.components[0].green.pop().unwrap();
        let Decision::Fly(flight) = decided(&facts) else { panic!("it flies") };
        let [apiserver, etcd] = &flight.swaps[..] else { panic!("both change") };
        assert_eq!((apiserver.component, etcd.component), (ComponentName::KubeApiserver, ComponentName::Etcd));
        assert!(!apiserver.probes.is_empty() && !apiserver.probes.contains(&red), "what was red before is not asked for");
        assert!(apiserver.needs.iter().all(|(name, _)| name.starts_with("tracing-")) && apiserver.original == apiserver.before.text);
        assert_eq!(apiserver.before.argv, facts.components[0].found.argv);
        assert_ne!(apiserver.before.argv, apiserver.after.argv);
        assert_eq!((&etcd.before.pod, etcd.held), (&facts.components[1].processes[0].pod, Held::BEFORE));
        assert_eq!(flight.health_timeout, 120_000);
    }

    #[test]
    fn a_component_that_is_not_well_is_waited_for() {
        let spoilt: [fn(&mut ComponentFacts); 4] = [
            |c| c.green.clear(),
            |c| c.processes.clear(),
            |c| c.processes.push(c.processes[0].clone()),
            |c| c.processes[0].argv.push("--other".into()),
        ];
        for spoil in spoilt {
            let mut facts = mk_facts();
            spoil(&mut facts.components[1]);
            let decision = decided(&facts);
            assert!(matches!(&decision, Decision::Wait(Blocker { reason: Reason::ComponentUnhealthy, .. })), "{decision:?}");
        }
    }

    #[test]
    fn a_port_that_somebody_else_holds_is_refused_by_name_and_uses_no_grant_up() {
        let holder = Some(Holder { program: "nginx".into(), pid: 4242 });
        let receiver = Receiver::PortTaken { port: 4317, listener: Listener { uid: 101, holder } };
        let facts = Facts { receiver, ..mk_facts() };
        let checked = check(&mk_target(), &facts, "cp1");
        let preflight = preflight(&mk_target(), &checked);
        assert_eq!((preflight.verdict, preflight.reason), (Verdict::Refused, Some(Reason::PortTaken)));
        assert!(
            preflight.message.contains("port 4317") && preflight.message.contains("nginx (pid 4242, uid 101)"),
            "{}",
            preflight.message
        );
        let decision = decide(&mk_grant(), &mk_target(), &checked, &facts);
        assert!(matches!(&decision, Decision::Wait(Blocker { reason: Reason::PortTaken, .. })), "{decision:?}");
    }

    #[test]
    fn only_our_own_folder_is_written_to() {
        assert_eq!(needed_name(&format!("{STATE_DIR}/tracing-1.yaml")), Ok("tracing-1.yaml".to_owned()));
        for path in ["/etc/passwd", "/etc/kubernetes/clustertracing2/x", "/etc/kubernetes/clustertracing/../x", "tracing-1.yaml"] {
            assert!(needed_name(path).is_err(), "{path}");
        }
        assert!(needed_name(&format!("{STATE_DIR}/.hidden")).is_err());
    }

    #[test]
    fn a_flight_stands_only_under_the_very_grant_and_target_that_it_began_with() {
        let Decision::Fly(flight) = decided(&mk_facts()) else { panic!("it flies") };
        let object = |grant, target| {
            NodeTracing::new("cp1", crate::api::NodeTracingSpec { node_uid: "uid".into(), target: Some(target), grant: Some(grant) })
        };
        let stands = |object: &NodeTracing, uid| super::stands(&flight.grant, &mk_target(), object, uid).is_ok();
        assert!(stands(&object(mk_grant(), mk_target()), "uid"));
        assert!(!stands(&object(mk_grant(), mk_target()), "another node of that name"));
        assert!(!stands(&object(Grant { id: 2, ..mk_grant() }, mk_target()), "uid"));
        let mut longer = mk_target();
        longer.settings.health_timeout_seconds = 60;
        assert!(!stands(&object(mk_grant(), longer), "uid"));
        assert!(!stands(
            &NodeTracing::new("cp1", crate::api::NodeTracingSpec { node_uid: "uid".into(), target: None, grant: None }),
            "uid"
        ));
    }
}
