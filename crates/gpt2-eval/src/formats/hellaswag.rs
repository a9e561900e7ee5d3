//! HellaSwag's JSONL: an object a line with the fields `ctx` (text), `label` (number, or number as text) and `endings`
//! (texts); others are passed over. As in llm.c (`dev/data/hellaswag.py`) the context is `ctx`, and each ending is
//! encoded with a space before it.

use super::json_lines;
use crate::error::EvalError;
use crate::tasks::multiple_choice::ChoiceExample;
use gpt2_data::Tokenizer;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

const EXPECTED: &str = "an object with `ctx` (text), `label` (the number of the right ending, from 0) and `endings` \
                        (texts), as HellaSwag's validation set has";

#[derive(Deserialize)]
struct Line {
    ctx: String,
    label: Value,
    endings: Vec<String>,
}

/// The examples of a file in GPT-2's tokens, in its order. Blank lines are passed over.
///
/// # Errors
/// [`EvalError::Io`], [`EvalError::Line`], [`EvalError::NoExamples`].
pub fn read(path: &Path) -> Result<Vec<ChoiceExample>, EvalError> {
    parse(path, &json_lines::read(path)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<ChoiceExample>, EvalError> {
    json_lines::parse(path, bytes, EXPECTED, |index, line| example(index, &line))
}

fn example(index: usize, line: &Line) -> Result<ChoiceExample, String> {
    if line.endings.len() < 2 {
        return Err(format!("`endings` has {}", line.endings.len()));
    }
    let label = match &line.label {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let label = label.and_then(|label| usize::try_from(label).ok());
    let label = label
        .filter(|&label| label < line.endings.len())
        .ok_or_else(|| format!("`label` is {} of {} endings", line.label, line.endings.len()))?;
    if line.ctx.is_empty() {
        return Err("`ctx` is empty".to_owned());
    }
    let tokenizer = Tokenizer::gpt2();
    let endings = line
        .endings
        .iter()
        .map(|ending| tokenizer.encode(&format!(" {ending}")));
    Ok(ChoiceExample {
        index,
        context: tokenizer.encode(&line.ctx),
        endings: endings.collect(),
        label,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(
        r#"{"ind": 3, "ctx": "Hello world", "label": 1, "endings": ["one", "two words", "three", "four"]}"#,
        "\r\n\n",
        r#"{"ctx": "A man", "label": "3", "endings": ["sits.", "stands.", "runs.", ""], "split": "val"}"#,
        "\n"
    );

    fn read_text(text: &[u8]) -> Result<Vec<ChoiceExample>, EvalError> {
        parse(Path::new("a.jsonl"), text)
    }

    fn problem(line: &str) -> String {
        let message = read_text(format!("{FILE}{line}\n").as_bytes()).unwrap_err().to_string();
        let (_, problem) = message.split_once("a.jsonl line 4: ").unwrap();
        problem
            .strip_suffix(&format!("; expected {EXPECTED}"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn endings_have_a_space_before_them() {
        let examples = read_text(FILE.as_bytes()).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[0].context, [15_496, 995]);
        assert_eq!(examples[0].endings[0], [530]); // " one"
        assert_eq!(examples[0].endings[1], [734, 2456]); // " two words"
        assert_eq!((examples[0].index, examples[0].label), (0, 1));
        assert_eq!((examples[1].index, examples[1].label), (1, 3));
        assert_eq!(examples[1].endings[3], [220]); // " "
    }

    #[test]
    fn a_line_that_is_no_example_is_named() {
        assert_eq!(
            problem(r#"{"ctx": "a", "endings": ["b", "c"]}"#),
            "missing field `label` at column 35"
        );
        assert_eq!(
            problem(r#"{"ctx": "a", "label": 2, "endings": ["b", "c"]}"#),
            "`label` is 2 of 2 endings"
        );
        // HellaSwag's test set has no labels.
        assert_eq!(
            problem(r#"{"ctx": "a", "label": "", "endings": ["b", "c"]}"#),
            "`label` is \"\" of 2 endings"
        );
        assert_eq!(
            problem(r#"{"ctx": "a", "label": -1, "endings": ["b", "c"]}"#),
            "`label` is -1 of 2 endings"
        );
        assert_eq!(
            problem(r#"{"ctx": "", "label": 0, "endings": ["b", "c"]}"#),
            "`ctx` is empty"
        );
        assert_eq!(
            problem(r#"{"ctx": "a", "label": 0, "endings": ["b"]}"#),
            "`endings` has 1"
        );
        assert_eq!(problem(r#"["a", 0, ["b", "c"]]"#), "no JSON object");
        let message = read_text(b"\xff").unwrap_err().to_string();
        assert!(
            message.contains("line 1: not UTF-8 at byte 0 of the line; "),
            "{message}"
        );
        let message = read_text(b"\n\n").unwrap_err().to_string();
        assert!(message.ends_with("holds no example, expected at least 1"), "{message}");
    }
}
