//! LAMBADA's JSONL: an object a line with the field `text`; others are passed over. The last word, with the space
//! before it, is what is predicted, as in the Language Model Evaluation Harness (`lambada_openai`).

use super::json_lines;
use crate::error::EvalError;
use crate::tasks::last_word::LastWordExample;
use gpt2_data::Tokenizer;
use serde::Deserialize;
use std::path::Path;

const EXPECTED: &str = "an object with `text`, of two words at least";

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The examples of a file in GPT-2's tokens, in its order. Blank lines are passed over, and spaces at the end of a
/// text.
///
/// # Errors
/// [`EvalError::Io`], [`EvalError::Line`], [`EvalError::NoExamples`].
pub fn read(path: &Path) -> Result<Vec<LastWordExample>, EvalError> {
    parse(path, &json_lines::read(path)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<LastWordExample>, EvalError> {
    json_lines::parse(path, bytes, EXPECTED, |_, line: Line| example(&line.text))
}

fn example(text: &str) -> Result<LastWordExample, String> {
    let text = text.trim_end();
    let space = text.rfind(' ').filter(|&space| space > 0);
    let Some(space) = space else {
        return Err(format!("`text` is {text:?}, one word"));
    };
    let (context, word) = text.split_at(space);
    let tokenizer = Tokenizer::gpt2();
    Ok(LastWordExample {
        context: tokenizer.encode(context),
        word: tokenizer.encode(word),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "{\"text\": \"Hello world, said Zyxwv \"}\n{\"text\": \"two  words\", \"domain\": 1}\n";

    fn read_text(text: &[u8]) -> Result<Vec<LastWordExample>, EvalError> {
        parse(Path::new("a.jsonl"), text)
    }

    #[test]
    fn the_last_word_keeps_its_space() {
        let examples = read_text(FILE.as_bytes()).unwrap();
        let tokenizer = Tokenizer::gpt2();
        let texts: Vec<_> = examples
            .iter()
            .map(|example| (tokenizer.decode(&example.context), tokenizer.decode(&example.word)))
            .collect();
        let pair = |context: &str, word: &str| (context.to_owned(), word.to_owned());
        assert_eq!(texts, [pair("Hello world, said", " Zyxwv"), pair("two ", " words")]);
        assert!(examples[0].word.len() > 1);
    }

    #[test]
    fn a_text_of_one_word_is_refused() {
        for text in ["", " ", "one", " one "] {
            let message = read_text(format!("{{\"text\": {text:?}}}").as_bytes())
                .unwrap_err()
                .to_string();
            let expected = format!("line 1: `text` is {:?}, one word; expected {EXPECTED}", text.trim_end());
            assert!(message.ends_with(&expected), "{message}");
        }
        let message = read_text(b"{\"txt\": \"a b\"}").unwrap_err().to_string();
        assert!(message.contains("line 1: missing field `text`"), "{message}");
    }
}
