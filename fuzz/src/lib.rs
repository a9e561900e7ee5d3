//! Every parser of files that others have made, and a sound file for each. What chance makes of that file is opened by
//! `tests/damaged.rs`; what libFuzzer makes of it, by the targets of `cargo fuzz`.

#![warn(missing_docs)]

use burn_flex::{Flex, FlexDevice};
use gpt2_data::{Shard, ShardWriter};
use gpt2_eval::formats::{hellaswag, lambada, llmc};
use gpt2_eval::tasks::multiple_choice::ChoiceExample;
use gpt2_model::weights::{Dtype, GgufVocabulary, Weights, save_gguf, save_hf, save_llmc};
use gpt2_model::{Gpt2, Gpt2Config};
use rand::{Rng, RngExt};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Nothing, or what is wrong with a file.
pub type Opened = Result<(), Box<dyn Error>>;

/// A parser, and how a file is made that it takes.
#[derive(Debug)]
pub struct Parser {
    /// The file, in a directory with what belongs to it.
    file: &'static str,
    write: fn(&Path) -> Opened,
    open: fn(&Path) -> Opened,
    /// As many bytes at the front say what the others mean.
    front: usize,
}

/// Weights of Hugging Face: the tensors.
pub const SAFETENSORS: Parser = Parser {
    file: "model.safetensors",
    write: |dir| Ok(save_hf(&model()?, dir)?),
    open: load,
    front: 3_500,
};

/// The architecture next to them.
pub const CONFIG: Parser = Parser {
    file: "config.json",
    front: usize::MAX,
    ..SAFETENSORS
};

/// The list of the files that tensors are in, where there are several.
pub const INDEX: Parser = Parser {
    file: "model.safetensors.index.json",
    write: |dir| {
        save_hf(&model()?, dir)?;
        fs::rename(dir.join("model.safetensors"), dir.join("a.safetensors"))?;
        let names =
            ["transformer.wte.weight", "transformer.wpe.weight"].map(|name| format!("{name:?}: \"a.safetensors\""));
        let index = format!("{{\"weight_map\": {{{}}}}}", names.join(", "));
        Ok(fs::write(dir.join("model.safetensors.index.json"), index)?)
    },
    open: load,
    front: usize::MAX,
};

/// Weights of llm.c.
pub const LLMC: Parser = Parser {
    file: "model.bin",
    write: |dir| Ok(save_llmc(&model()?, &dir.join("model.bin"), Dtype::F32)?),
    open: |dir| load(&dir.join("model.bin")),
    front: 32,
};

/// Weights of llama.cpp.
pub const GGUF: Parser = Parser {
    file: "model.gguf",
    write: |dir| {
        let vocabulary = GgufVocabulary {
            tokens: vec!["a".to_owned(), "b".to_owned()],
            merges: vec!["a b".to_owned()],
            end_of_text: 0,
        };
        Ok(save_gguf(
            &model()?,
            &dir.join("model.gguf"),
            Dtype::F32,
            "m",
            Some(&vocabulary),
        )?)
    },
    open: |dir| load(&dir.join("model.gguf")),
    front: 3_000,
};

/// HellaSwag's examples, as they are published.
pub const HELLASWAG: Parser = Parser {
    file: "hellaswag.jsonl",
    write: |dir| {
        let lines = concat!(
            r#"{"ind": 3, "ctx": "Hello world", "label": 1, "endings": ["one", "two words", "three", "four"]}"#,
            "\r\n\n",
            r#"{"ctx": "A man", "label": "3", "endings": ["sits.", "stands.", "runs.", ""], "split": "val"}"#,
            "\n"
        );
        Ok(fs::write(dir.join("hellaswag.jsonl"), lines)?)
    },
    open: |dir| Ok(hellaswag::read(&dir.join("hellaswag.jsonl")).map(drop)?),
    front: usize::MAX,
};

/// The same as llm.c's file of tokens.
pub const CHOICES: Parser = Parser {
    file: "hellaswag.bin",
    write: |dir| {
        let example = |index| ChoiceExample {
            index,
            context: vec![1, 2, 3],
            endings: vec![vec![4], vec![5, 6], vec![7], vec![8]],
            label: 1,
        };
        Ok(llmc::write(&dir.join("hellaswag.bin"), &[example(0), example(1)])?)
    },
    open: |dir| Ok(llmc::read(&dir.join("hellaswag.bin")).map(drop)?),
    front: usize::MAX,
};

/// LAMBADA's examples.
pub const LAMBADA: Parser = Parser {
    file: "lambada.jsonl",
    write: |dir| {
        let lines = "{\"text\": \"Hello world, said Zyxwv\"}\n{\"text\": \"two  words\", \"id\": 7}\n";
        Ok(fs::write(dir.join("lambada.jsonl"), lines)?)
    },
    open: |dir| Ok(lambada::read(&dir.join("lambada.jsonl")).map(drop)?),
    front: usize::MAX,
};

/// A shard of tokens.
pub const SHARD: Parser = Parser {
    file: "train_000000.bin",
    write: |dir| {
        let mut writer = ShardWriter::create(dir.join("train_000000.bin"))?;
        writer.extend(&[1, 2, 3, 4])?;
        Ok(writer.finish().map(drop)?)
    },
    open: |dir| Ok(Shard::open(dir.join("train_000000.bin"))?.tokens().map(drop)?),
    front: 16,
};

/// Two layers of width 8.
fn model() -> Result<Gpt2<Flex>, Box<dyn Error>> {
    let config = Gpt2Config {
        vocab_size: 61,
        block_size: 16,
        n_layer: 2,
        n_head: 2,
        n_embd: 8,
        ..Gpt2Config::preset("d3")?
    };
    Ok(config.init(1, &FlexDevice)?)
}

fn load(path: &Path) -> Opened {
    let weights = Weights::open(path)?;
    weights.load::<Flex>(weights.config(), &FlexDevice)?;
    Ok(())
}

/// A sound file, to be written over. It is removed with this.
#[derive(Debug)]
pub struct Sound {
    parser: &'static Parser,
    dir: TempDir,
    bytes: Vec<u8>,
}

impl Parser {
    /// A sound file of it, which is opened once.
    ///
    /// # Errors
    /// That it cannot be written or opened.
    pub fn sound(&'static self) -> Result<Sound, Box<dyn Error>> {
        let dir = TempDir::new()?;
        (self.write)(dir.path())?;
        (self.open)(dir.path())?;
        let bytes = fs::read(dir.path().join(self.file))?;
        Ok(Sound {
            parser: self,
            dir,
            bytes,
        })
    }
}

impl Sound {
    /// Opens `bytes` in the place of the file.
    ///
    /// # Errors
    /// What the parser says of them.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn open(&self, bytes: &[u8]) -> Opened {
        fs::write(self.path(), bytes).expect("the directory is ours");
        (self.parser.open)(self.dir.path())
    }

    /// Bytes of the file and of what belongs to it.
    ///
    /// # Errors
    /// That they cannot be told.
    pub fn size(&self) -> std::io::Result<u64> {
        fs::read_dir(self.dir.path())?
            .map(|entry| Ok(entry?.metadata()?.len()))
            .sum()
    }

    /// The file cut off after each of its first bytes, as far as they say what the others mean.
    pub fn cuts(&self) -> impl Iterator<Item = Vec<u8>> {
        let lengths = 0..self.parser.front.min(self.bytes.len());
        lengths.map(|length| self.bytes[..length].to_vec())
    }

    /// The file with a few bytes changed, removed or repeated, or cut off.
    pub fn damaged(&self, rng: &mut impl Rng) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..rng.random_range(1..5) {
            let at = rng.random_range(0..self.parser.front.min(bytes.len()).max(1));
            let end = |bytes: &[u8], length: usize| (at + length).min(bytes.len());
            match rng.random_range(0..6) {
                0 => bytes[at] = rng.random(),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                // A number at its ends.
                2 => {
                    let end = end(&bytes, 8);
                    bytes[at..end].fill(if rng.random() { 0xff } else { 0 });
                }
                3 => bytes.truncate(at.max(1)),
                4 => {
                    let end = end(&bytes, rng.random_range(1..9));
                    bytes.drain(at..end);
                }
                _ => {
                    let end = end(&bytes, rng.random_range(1..9));
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        bytes
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(self.parser.file)
    }
}

/// The program in which libFuzzer calls a parser.
#[cfg(feature = "targets")]
#[macro_export]
macro_rules! target {
    ($parser:ident) => {
        static SOUND: std::sync::LazyLock<$crate::Sound> =
            std::sync::LazyLock::new(|| $crate::$parser.sound().expect("a sound file is opened"));

        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            let _ = SOUND.open(bytes);
        });
    };
}
