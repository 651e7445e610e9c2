//! `completion`: scripts of shells for the program's own name, and what kubectl asks for to complete `kubectl tracing …`.

use std::ffi::OsString;

use clap::CommandFactory;
use clap_complete::{engine, shells};

use super::Cli;

/// Who completes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Shell {
    /// bash, after `kubectl-tracing`
    Bash,
    /// zsh, after `kubectl-tracing`
    Zsh,
    /// fish, after `kubectl-tracing`
    Fish,
    /// kubectl, after `kubectl tracing`, in whatever shell: the file kubectl_complete-tracing
    Kubectl,
}

/// What kubectl runs for a plugin's completion, found in the PATH under this plugin's name (kubectl 1.26 on, `completion_plugin.go`).
const FOR_KUBECTL: &str = "#!/bin/sh\n# kubectl runs this to complete `kubectl tracing`: save it as kubectl_complete-tracing in the PATH, executable.\nexec kubectl-tracing __complete -- \"$@\"\n";

/// Cobra's directive that nothing but these are candidates: no names of files (`ShellCompDirectiveNoFileComp`).
const NO_FILES: &str = ":4";
/// Cobra's directive that names of files may be (`ShellCompDirectiveDefault`).
const FILES: &str = ":0";

/// The script of a shell, or of kubectl.
pub(super) fn script(shell: Shell) -> String {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    let name = command.get_name().to_owned();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, name, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, name, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, name, &mut script),
        Shell::Kubectl => return FOR_KUBECTL.to_owned(),
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// Candidates for the last of these words, as kubectl reads them: one a line, a tab before its description, a directive on the last line.
pub(super) fn candidates(words: &[OsString]) -> String {
    let mut command = Cli::command();
    let line: Vec<OsString> = std::iter::once(command.get_name().into()).chain(words.iter().cloned()).collect();
    let last = line.len() - 1;
    let found = engine::complete(&mut command, line, last, None).unwrap_or_default();
    let shown = found.iter().filter(|candidate| !candidate.is_hide_set());
    let text = |candidate: &engine::CompletionCandidate| {
        let help = candidate.get_help().map(|help| format!("\t{}", help.to_string().lines().next().unwrap_or_default()));
        format!("{}{}\n", candidate.get_value().to_string_lossy(), help.unwrap_or_default())
    };
    let directive = if found.is_empty() { FILES } else { NO_FILES };
    shown.map(text).collect::<String>() + directive + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            assert!(["kubectl-tracing", "render", "kubernetes-version"].iter().all(|word| script.contains(word)), "{shell:?}: {script}");
        }
    }

    #[test]
    fn kubectl_gets_candidates_with_what_they_mean_and_no_hidden_ones() {
        let told = |words: &[&str]| candidates(&words.iter().map(OsString::from).collect::<Vec<_>>());
        let commands = told(&["ro"]);
        assert!(commands.starts_with("rollout\tWatch a change") && commands.ends_with("\n:4\n"), "{commands}");
        assert!(!told(&[""]).contains("__complete"));
        assert!(told(&["rollout", "st"]).starts_with("status\t"));
        assert!(told(&["top", "we"]).starts_with("webhooks\t"));
        assert!(told(&["status", "--operator-"]).starts_with("--operator-namespace\t"));
    }
}
