//! The originals on the node's disk, and what a person needs to put them back where nobody of us can: the folder `backup`, a `README` that
//! names the edited files, the originals' digests and the commands, and a copy of the agent's program, which those commands start.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::watchdog::PROGRAM;
use crate::api::ComponentName;
use crate::api::node_tracing::sha256_hex;
use crate::component::{ManifestFile, STATE_DIR, find};
use crate::host::{self, File, Folder, Host, Permissions, is_temporary, replace, temporary_name};

/// What it is called in the state folder.
pub const README: &str = "README";
/// What stands before an original's name in the README, so that `sha256sum --check README` finds it.
const LISTED: &str = "  backup/";

/// The original of one manifest, as it is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The manifest's name.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Whether it has the digest that it was kept with.
    pub as_kept: bool,
    /// Mode and owner of the manifest, where a copy of it was staged.
    pub permissions: Option<Permissions>,
}

/// Keeps these originals (name and text of a manifest without anything of ours), and says so in the README. Writes what is not there yet.
pub fn keep<'a>(host: &impl Host, originals: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), host::Error> {
    let mut digests = recorded(host);
    for (name, text) in originals {
        let file = File { bytes: text.as_bytes().to_vec(), permissions: Permissions::own(0o600) };
        if host.read(Folder::Backups, name)?.as_ref() != Some(&file) {
            replace(host, Folder::Backups, name, &file)?;
        }
        digests.insert(name.to_owned(), sha256_hex(text.as_bytes()));
    }
    describe(host, &digests)
}

/// Brings README and program up to this version and to the originals that are there; without any there is nothing to say.
pub fn refresh(host: &impl Host) -> Result<(), host::Error> {
    describe(host, &recorded(host))
}

/// The originals that are there.
pub fn kept(host: &impl Host) -> Result<Vec<Original>, host::Error> {
    let recorded = recorded(host);
    let mut originals = Vec::new();
    for file in names(host)? {
        let Some(there) = host.read(Folder::Backups, &file)? else { continue };
        let staged = host.read(Folder::Manifests, &temporary_name(&file, &there.bytes)).ok().flatten();
        originals.push(Original {
            as_kept: recorded.get(&file) == Some(&sha256_hex(&there.bytes)),
            text: String::from_utf8_lossy(&there.bytes).into_owned(),
            permissions: staged.map(|staged| staged.permissions),
            file,
        });
    }
    Ok(originals)
}

fn names(host: &impl Host) -> Result<Vec<String>, host::Error> {
    let entries = host.list(Folder::Backups)?.into_iter();
    Ok(entries.filter(|entry| entry.regular && !is_temporary(&entry.name)).map(|entry| entry.name).collect())
}

/// What the README says of the originals' digests. One that cannot be read says nothing.
fn recorded(host: &impl Host) -> BTreeMap<String, String> {
    let readme = host.read(Folder::State, README).ok().flatten();
    readme.map(|file| digests(&String::from_utf8_lossy(&file.bytes))).unwrap_or_default()
}

fn digests(readme: &str) -> BTreeMap<String, String> {
    let lines = readme.lines().filter_map(|line| line.split_once(LISTED));
    lines.filter(|(digest, _)| digest.len() == 64).map(|(digest, name)| (name.to_owned(), digest.to_owned())).collect()
}

fn describe(host: &impl Host, digests: &BTreeMap<String, String>) -> Result<(), host::Error> {
    let mut edited = Vec::new();
    for name in names(host)? {
        let Some(file) = host.read(Folder::Backups, &name)? else { continue };
        // one that a version without a README kept
        let digest = digests.get(&name).cloned().unwrap_or_else(|| sha256_hex(&file.bytes));
        let text = String::from_utf8_lossy(&file.bytes).into_owned();
        let component = find(&[ManifestFile { name: name.clone(), text }]).ok().and_then(|found| Some(found.first()?.component));
        edited.push(Edited { component, name, digest });
    }
    if edited.is_empty() {
        return Ok(());
    }
    // a client before its server
    edited.sort_by_key(|edited| edited.component.map_or(usize::MAX, |component| component as usize));
    host.keep_program(PROGRAM)?;
    let file = File { bytes: readme(&edited).into_bytes(), permissions: Permissions::own(0o644) };
    if host.read(Folder::State, README).ok().flatten().as_ref() != Some(&file) {
        replace(host, Folder::State, README, &file)?;
    }
    Ok(())
}

/// One edited manifest.
struct Edited {
    /// Whose it is; `None` where its original cannot be understood.
    component: Option<ComponentName>,
    name: String,
    digest: String,
}

fn readme(edited: &[Edited]) -> String {
    let mut text = README_HEAD.replace("{state}", STATE_DIR);
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes every text");
    for Edited { name, digest, .. } in edited {
        line(format!("{digest}{LISTED}{name}"));
    }
    line(README_COMMANDS.replace("{state}", STATE_DIR).replace("{program}", PROGRAM));
    for Edited { component, name, .. } in edited {
        line(format!("    mv {MANIFESTS}/{name} away/"));
        if let Some(component) = component {
            line(format!("    while pgrep -x {component}; do sleep 1; done"));
        }
    }
    line("    sleep 3".to_owned());
    for Edited { name, .. } in edited.iter().rev() {
        let hidden = format!("{MANIFESTS}/.{name}");
        line(format!("    cp backup/{name} {hidden}"));
        line(format!("    chmod --reference=away/{name} {hidden}; chown --reference=away/{name} {hidden}"));
        line(format!("    mv {hidden} {MANIFESTS}/{name}"));
    }
    line(README_END.replace("{state}", STATE_DIR));
    text
}

const MANIFESTS: &str = "/etc/kubernetes/manifests";

const README_HEAD: &str = "\
ClusterTracing has edited static-pod manifests of this node: tracing flags were added. This folder holds what takes them out again.

The edited files are in /etc/kubernetes/manifests, and their originals, as they were without the flags, in {state}:

";

const README_COMMANDS: &str = "
To give the node its originals back, as root. It needs no API server, no controller and no network:

    {state}/{program} restore --dry-run
    {state}/{program} restore

The first says what the second does. The second ends with 0 when the originals serve again.

Where that program cannot run, ask the agent, or its watchdog, if one of them is alive:

    touch {state}/recall

If it has become {state}/restored after two minutes, the originals are back. Otherwise nobody is there: by hand,
in this order, which interrupts the API for the shortest time.

    cd {state}
    touch restored; rm -f recall; mv -f journal journal.old
    rm -f /etc/kubernetes/manifests/clustertracing-watchdog.json
    sha256sum --check README
    mkdir -p -m 700 away";

const README_END: &str = "
sha256sum warns that it passes over this text, and says OK for each original that is as it was kept. If one is not, or a manifest was not in
its folder any more, look for the hidden copies there: ls -la /etc/kubernetes/manifests. They hold all versions; the flags stand in the edited
ones, beside an annotation clustertracing.dev/added.

While {state}/restored is there, ClusterTracing does not change this node. Remove it to have it traced again;
what you moved to away and to journal.old is of no use then.";

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_edited() -> Vec<Edited> {
        let edited = |component: ComponentName, digest: &str| Edited {
            component: Some(component),
            name: format!("{component}.yaml"),
            digest: digest.repeat(64),
        };
        vec![edited(ComponentName::KubeApiserver, "a"), edited(ComponentName::Etcd, "b")]
    }

    #[test]
    fn the_readme_says_what_the_golden_file_shows() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/agent/originals/README");
        let text = readme(&mk_edited());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap(), "run with UPDATE_GOLDEN=1 and read the difference");
    }

    #[test]
    fn the_digests_of_a_readme_are_read_back() {
        let expected = mk_edited().into_iter().map(|edited| (edited.name, edited.digest)).collect();
        assert_eq!(digests(&readme(&mk_edited())), expected);
        assert!(digests("half a line  backup/etcd.yaml\n").is_empty());
    }
}
