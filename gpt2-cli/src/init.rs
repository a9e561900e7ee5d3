//! Whether `--init` names weights at all. What is wrong inside them is said where they are read.

use crate::command_line::Typed;
use crate::error::CliError;
use crate::printer::quoted;
use std::path::{Path, PathBuf};

/// What `--init` takes.
const EXPECTED: &str = "a directory with config.json and model.safetensors";

/// Refuses what is no directory.
///
/// # Errors
/// [`CliError::NoWeights`], with the command that gets them where that can be told.
pub(crate) fn check(init: &Path) -> Result<(), CliError> {
    if init.is_dir() {
        return Ok(());
    }
    Err(refuse(init, &Typed::here()))
}

fn refuse(init: &Path, typed: &Typed) -> CliError {
    let again = |init: &Path| typed.clone().with("--init", init).line();
    let (found, hint) = if init.is_file() {
        let dir = init.parent().filter(|dir| !dir.as_os_str().is_empty());
        ("is a file", again(dir.unwrap_or(Path::new("."))))
    } else if let Some(name) = hub_name(init) {
        let dir = Path::new("models").join(name.rsplit('/').next().unwrap_or(name));
        let download = format!(
            "hf download {name} config.json model.safetensors --local-dir {}",
            quoted(&dir)
        );
        (
            "does not exist; it looks like a name on the Hugging Face Hub, from which nothing is fetched here",
            format!("{download} && {}", again(&dir)),
        )
    } else {
        ("does not exist", format!("`--init` takes {EXPECTED}"))
    };
    CliError::NoWeights {
        path: init.to_path_buf(),
        found,
        expected: EXPECTED,
        hint,
    }
}

/// `path` as the name of a model on the hub, such as `openai-community/gpt2` or `gpt2-medium`.
fn hub_name(path: &Path) -> Option<&str> {
    let name = path.to_str()?;
    let parts: Vec<&str> = name.split('/').collect();
    let is_name = |part: &&str| {
        let letters = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(letters)
    };
    let owner_is_here = PathBuf::from(parts[0]).is_dir();
    let known = parts.len() == 1 && ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"].contains(&name);
    let looks_so = known || (parts.len() == 2 && !owner_is_here);
    (looks_so && parts.iter().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_and_hint(init: &str) -> (String, String) {
        let typed = Typed::of(&format!("sample --init {init} --prompt Once"));
        match refuse(Path::new(init), &typed) {
            CliError::NoWeights { ref hint, .. } => (refuse(Path::new(init), &typed).to_string(), hint.clone()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_name_on_the_hub_is_told_from_a_path() {
        for name in ["openai-community/gpt2", "stanford-crfm/alias-gpt2-small-x21", "gpt2-xl"] {
            assert_eq!(hub_name(Path::new(name)), Some(name));
        }
        // The tests run in the crate's directory.
        for path in [
            "gpt3",
            "src/weights",
            "./a/b",
            "../a",
            "/models/gpt2",
            "a/b/c",
            "my models/gpt2",
            "a/",
        ] {
            assert_eq!(hub_name(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let (message, hint) = message_and_hint("openai-community/gpt2");
        assert_eq!(
            message,
            "--init openai-community/gpt2 does not exist; it looks like a name on the Hugging Face Hub, from which nothing \
             is fetched here; expected a directory with config.json and model.safetensors"
        );
        assert_eq!(
            hint,
            "hf download openai-community/gpt2 config.json model.safetensors --local-dir models/gpt2 && \
             gpt2 sample --prompt Once --init models/gpt2"
        );
        let (message, hint) = message_and_hint("src/main.rs");
        assert!(
            message.starts_with("--init src/main.rs is a file; expected "),
            "{message}"
        );
        assert_eq!(hint, "gpt2 sample --prompt Once --init src");
    }
}
