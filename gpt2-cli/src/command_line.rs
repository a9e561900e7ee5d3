//! Command lines to type: this process's own with other flags, and the one that starts a run from another's plan.

use crate::printer::quoted;
use gpt2_train::run_dir::RunPaths;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The arguments that this process was given, so that a hint can give them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typed(Vec<OsString>);

impl Typed {
    /// This process's.
    pub(crate) fn here() -> Self {
        Self(std::env::args_os().skip(1).collect())
    }

    /// The arguments of `line`, which are separated by single spaces.
    #[cfg(test)]
    pub(crate) fn of(line: &str) -> Self {
        Self(line.split(' ').map(OsString::from).collect())
    }

    /// The first word, such as `train`.
    pub(crate) fn command(&self) -> &str {
        self.0.first().and_then(|word| word.to_str()).unwrap_or_default()
    }

    /// What a flag was given.
    pub(crate) fn value_of(&self, flag: &str) -> Option<OsString> {
        let mut words = self.0.iter();
        while let Some(word) = words.next() {
            if word == flag {
                return words.next().cloned();
            }
            let joined = word
                .to_str()
                .and_then(|word| word.strip_prefix(flag)?.strip_prefix('='));
            if let Some(value) = joined {
                return Some(value.into());
            }
        }
        None
    }

    /// Whether a switch was given.
    pub(crate) fn has_switch(&self, switch: &str) -> bool {
        self.0.iter().any(|word| word == switch)
    }

    /// The same without a switch.
    #[must_use]
    pub(crate) fn without_switch(mut self, switch: &str) -> Self {
        self.0.retain(|word| word != switch);
        self
    }

    /// The same without a flag and its value.
    #[must_use]
    pub(crate) fn without(mut self, flag: &str) -> Self {
        if let Some(at) = self.0.iter().position(|word| word == flag) {
            self.0.drain(at..self.0.len().min(at + 2));
        }
        let joined = format!("{flag}=");
        self.0
            .retain(|word| !word.to_str().is_some_and(|word| word.starts_with(&joined)));
        self
    }

    /// The same with a flag set to `value`.
    #[must_use]
    pub(crate) fn with(self, flag: &str, value: impl Into<OsString>) -> Self {
        let mut typed = self.without(flag);
        typed.0.extend([flag.into(), value.into()]);
        typed
    }

    /// As it is typed.
    pub(crate) fn line(&self) -> String {
        std::iter::once("gpt2".to_owned())
            .chain(self.0.iter().map(|word| quoted(Path::new(word))))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A directory next to `run` that holds no run yet, such as `runs/demo-2`.
pub(crate) fn unused_next_to(run: &Path) -> PathBuf {
    let stem = run.file_name().map_or("run".into(), |name| name.to_string_lossy());
    RunPaths::unused(run.parent().unwrap_or(Path::new("")), &stem)
}

/// The command that starts a run as the one in `run` was planned, in the same directory.
pub(crate) fn begin_again(run: &Path) -> String {
    as_planned(run).with("--run", run).line()
}

fn as_planned(run: &Path) -> Typed {
    Typed(vec!["train".into()]).with("--config", RunPaths::new(run).plan())
}

/// The command that starts another such run, from the weights of a checkpoint or from the plan's own, with other values
/// for some flags.
pub(crate) fn new_run(run: &Path, checkpoint: Option<&Path>, flags: &[(&str, String)]) -> String {
    let mut typed = as_planned(run);
    if let Some(checkpoint) = checkpoint {
        typed = typed.with("--init", checkpoint);
    }
    typed = typed.with("--run", unused_next_to(run));
    for (flag, value) in flags {
        typed = typed.with(flag, value);
    }
    typed.line()
}

/// The command that goes on with the run in `run`.
pub(crate) fn resume(run: &Path) -> String {
    format!("gpt2 train --run {} --resume", quoted(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_replaced_however_they_were_written() {
        let typed = Typed::of("train --run=a --lr 1 --resume --steps 5");
        assert_eq!(typed.command(), "train");
        assert_eq!(typed.value_of("--data"), None);
        assert_eq!(typed.value_of("--run"), Some("a".into()));
        let other = typed
            .without_switch("--resume")
            .with("--lr", "0.1")
            .with("--run", "my runs/b");
        assert_eq!(other.line(), "gpt2 train --steps 5 --lr 0.1 --run 'my runs/b'");
    }

    #[test]
    fn a_new_run_is_next_to_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a b");
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("plan.toml"), "").unwrap();
        let line = new_run(&run, Some(&run.join("c")), &[("--lr", "6e-5".into())]);
        let root = dir.path().display();
        assert_eq!(
            line,
            format!("gpt2 train --config '{root}/a b/plan.toml' --init '{root}/a b/c' --run '{root}/a b-2' --lr 6e-5")
        );
    }
}
