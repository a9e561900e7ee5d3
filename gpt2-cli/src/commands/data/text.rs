//! `gpt2 data encode` and `gpt2 data decode`: a look at the tokenizer. What the one prints the other reads.

use crate::cli::{DecodeArgs, EncodeArgs};
use crate::error::CliError;
use crate::printer::print;
use gpt2_data::{Tokenizer, VOCAB_SIZE};
use std::io::{self, IsTerminal, Read};

/// Prints the tokens of a text on one line.
pub(super) fn encode(args: &EncodeArgs) -> Result<(), CliError> {
    let read;
    let text = if let Some(text) = &args.text {
        text
    } else {
        read = read_stdin("UTF-8 text")?;
        &read
    };
    let tokenizer = Tokenizer::gpt2();
    let tokens = if args.special {
        tokenizer.encode_with_special(text)
    } else {
        tokenizer.encode(text)
    };
    let words: Vec<String> = tokens.iter().map(u16::to_string).collect();
    print(words.join(" ") + "\n")
}

/// Prints the exact bytes of the tokens. A newline is added only for a person's eyes.
pub(super) fn decode(args: &DecodeArgs) -> Result<(), CliError> {
    let text = if args.ids.is_empty() {
        read_stdin("token numbers")?
    } else {
        args.ids.join(" ")
    };
    let tokens = parse_tokens(&text, VOCAB_SIZE)?;
    // GPT-2's tokens fit 16 bits.
    let tokens: Vec<u16> = tokens.into_iter().map(|token| token as u16).collect();
    let mut bytes = Tokenizer::gpt2().decode_bytes(&tokens);
    if io::stdout().is_terminal() {
        bytes.push(b'\n');
    }
    print(bytes)
}

fn read_stdin(expected: &'static str) -> Result<String, CliError> {
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.map_err(|source| CliError::Stdin { source, expected })?;
    Ok(text)
}

/// Tokens of a vocabulary, written as numbers between spaces or commas.
///
/// # Errors
/// [`CliError::BadToken`].
pub(in crate::commands) fn parse_tokens(text: &str, vocab_size: usize) -> Result<Vec<usize>, CliError> {
    let words = text
        .split(|c: char| c.is_whitespace() || c == ',')
        .filter(|word| !word.is_empty());
    words
        .enumerate()
        .map(|(index, word)| match word.parse::<usize>() {
            Ok(token) if token < vocab_size => Ok(token),
            _ => Err(CliError::BadToken {
                word: word.to_owned(),
                position: index + 1,
                largest: vocab_size - 1,
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_separated_either_way() {
        assert_eq!(parse_tokens(" 15496 995\n", VOCAB_SIZE).unwrap(), [15496, 995]);
        assert_eq!(parse_tokens("15496, 995,0", VOCAB_SIZE).unwrap(), [15496, 995, 0]);
        assert!(parse_tokens("", VOCAB_SIZE).unwrap().is_empty());
    }

    #[test]
    fn a_word_that_is_no_token_is_named() {
        for word in ["x", "-1", "50257", "1e3"] {
            let message = parse_tokens(&format!("7 {word}"), VOCAB_SIZE).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("{word:?} is not a token (word 2): expected a whole number from 0 to 50256")
            );
        }
    }
}
