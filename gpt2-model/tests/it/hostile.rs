//! Files that were damaged or made up: each is an error or a model, never a panic.

use crate::support::{DEVICE, Inference, small};
use gpt2_model::weights::{Dtype, GgufVocabulary, Weights, save_gguf, save_hf, save_llmc};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::{TempDir, tempdir};

/// Files of each kind; `GPT2_MUTATIONS` sets another number.
const MUTATIONS: usize = 1_000;

/// Sound weights, and the file of them that is changed.
struct Sound {
    /// Goes with this.
    _dir: TempDir,
    open: PathBuf,
    file: PathBuf,
    /// Bytes of it that say what the others are, as far as a change of the others changes nothing but numbers.
    header: usize,
}

fn hf(file: &str) -> Sound {
    let dir = tempdir().unwrap();
    let model = small().init::<Inference>(1, &DEVICE).unwrap();
    save_hf(&model, dir.path()).unwrap();
    if file.ends_with("index.json") {
        fs::rename(dir.path().join("model.safetensors"), dir.path().join("a.safetensors")).unwrap();
        let index =
            r#"{"weight_map": {"transformer.wte.weight": "a.safetensors", "transformer.wpe.weight": "a.safetensors"}}"#;
        fs::write(dir.path().join(file), index).unwrap();
    }
    Sound {
        open: dir.path().to_owned(),
        file: dir.path().join(file),
        _dir: dir,
        header: 3_500,
    }
}

fn single(header: usize, save: impl FnOnce(&Path)) -> Sound {
    let dir = tempdir().unwrap();
    let file = dir.path().join("weights");
    save(&file);
    Sound {
        open: file.clone(),
        file,
        _dir: dir,
        header,
    }
}

/// A few bytes other, some gone, some twice, or the end cut.
fn mutate(bytes: &mut Vec<u8>, header: usize, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..5) {
        let at = rng.random_range(0..header.min(bytes.len()).max(1));
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            // A number at its ends.
            2 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(if rng.random() { 0xff } else { 0 });
            }
            3 => bytes.truncate(at.max(1)),
            4 => {
                let end = (at + rng.random_range(1..9)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + rng.random_range(1..9)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

fn check(sound: &Sound) {
    let count = std::env::var("GPT2_MUTATIONS").map_or(MUTATIONS, |count| count.parse().unwrap());
    let original = fs::read(&sound.file).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut opened = 0;
    for _ in 0..count {
        let mut bytes = original.clone();
        mutate(&mut bytes, sound.header, &mut rng);
        fs::write(&sound.file, &bytes).unwrap();
        match Weights::open(&sound.open) {
            Ok(weights) => {
                weights.load::<Inference>(weights.config(), &DEVICE).unwrap();
                opened += 1;
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(opened < count, "no change was noticed");
}

#[test]
fn safetensors() {
    check(&hf("model.safetensors"));
}

#[test]
fn index() {
    check(&hf("model.safetensors.index.json"));
}

#[test]
fn config() {
    check(&hf("config.json"));
}

#[test]
fn llmc() {
    let model = small().init::<Inference>(1, &DEVICE).unwrap();
    check(&single(32, |path| save_llmc(&model, path, Dtype::F32).unwrap()));
}

#[test]
fn gguf() {
    let model = small().init::<Inference>(1, &DEVICE).unwrap();
    let vocabulary = GgufVocabulary {
        tokens: vec!["a".to_owned(), "b".to_owned()],
        merges: vec!["a b".to_owned()],
        end_of_text: 0,
    };
    check(&single(3_000, |path| {
        save_gguf(&model, path, Dtype::F32, "m", Some(&vocabulary)).unwrap();
    }));
}
