//! One model in every format: what is written is read, to the last bit where the type of the numbers is the same.

use crate::support::{DEVICE, Inference, bits, floats, small, tokens};
use gpt2_model::weights::{
    Dtype, Format, GgufVocabulary, NamedTensor, Weights, parameters, save_gguf, save_hf, save_llmc,
};
use gpt2_model::{Activation, Gpt2, Gpt2Config, Variant};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::tempdir;

/// OpenAI's architecture, which every format has.
fn openai() -> Gpt2<Inference> {
    small().init(1, &DEVICE).unwrap()
}

/// What GGUF has besides.
fn wide_and_untied() -> Gpt2<Inference> {
    let config = Gpt2Config {
        variant: Variant {
            n_inner: Some(24),
            tie_word_embeddings: false,
            ..Variant::default()
        },
        ..small()
    };
    config.init(1, &DEVICE).unwrap()
}

/// What Hugging Face's format alone has.
fn everything_else() -> Gpt2<Inference> {
    let config = Gpt2Config {
        variant: Variant {
            n_inner: Some(24),
            activation_function: Activation::Relu,
            tie_word_embeddings: false,
            scale_attn_weights: false,
            scale_attn_by_inverse_layer_idx: true,
        },
        ..small()
    };
    config.init(1, &DEVICE).unwrap()
}

fn rounded(mut tensors: Vec<NamedTensor>, round: impl Fn(f32) -> f32) -> Vec<NamedTensor> {
    for value in tensors.iter_mut().flat_map(|tensor| &mut tensor.values) {
        *value = round(*value);
    }
    tensors
}

fn to_bf16(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

fn to_f16(value: f32) -> f32 {
    half::f16::from_f32(value).to_f32()
}

#[track_caller]
fn assert_holds(path: &Path, format: Format, config: &Gpt2Config, expected: &[NamedTensor]) {
    let weights = Weights::open(path).unwrap();
    assert_eq!((weights.format(), weights.config()), (format, config));
    let found = parameters(&Gpt2::<Inference>::load(path, &DEVICE).unwrap());
    assert_eq!(found, expected);
}

#[test]
fn each_format_holds_the_model() {
    let dir = tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let (llmc, gguf) = (at("m.bin"), at("m.gguf"));
    for (dtype, round) in [
        (Dtype::F32, (|value| value) as fn(f32) -> f32),
        (Dtype::Bf16, to_bf16),
        (Dtype::F16, to_f16),
    ] {
        let model = openai();
        let expected = rounded(parameters(&model), round);
        if dtype != Dtype::F16 {
            save_llmc(&model, &llmc, dtype).unwrap();
            assert_holds(&llmc, Format::Llmc, &model.config, &expected);
        }
        for model in [model, wide_and_untied()] {
            let mut expected = parameters(&model);
            // Vectors and positions stay f32.
            for tensor in expected
                .iter_mut()
                .filter(|tensor| tensor.shape.len() == 2 && tensor.name != "wpe.weight")
            {
                tensor.values.iter_mut().for_each(|value| *value = round(*value));
            }
            save_gguf(&model, &gguf, dtype, "small", None).unwrap();
            assert_holds(&gguf, Format::Gguf, &model.config, &expected);
        }
        let model = everything_else();
        let (f32s, typed) = (at("f32"), at(dtype.as_str()));
        for dir in [&f32s, &typed] {
            fs::create_dir_all(dir).unwrap();
        }
        save_hf(&model, &f32s).unwrap();
        Weights::open(&f32s).unwrap().write_hf(&typed, dtype).unwrap();
        assert_holds(&typed, Format::Hf, &model.config, &rounded(parameters(&model), round));
    }
}

#[test]
fn a_round_trip_gives_the_same_bytes() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for dtype in [Dtype::F32, Dtype::Bf16] {
        save_llmc(&openai(), &at("a.bin"), dtype).unwrap();
        let hf = at(dtype.as_str());
        fs::create_dir(&hf).unwrap();
        Weights::open(&at("a.bin")).unwrap().write_hf(&hf, Dtype::F32).unwrap();
        Weights::open(&hf).unwrap().write_llmc(&at("b.bin"), dtype).unwrap();
        assert!(
            fs::read(at("a.bin")).unwrap() == fs::read(at("b.bin")).unwrap(),
            "{dtype}"
        );
        Weights::open(&at("b.bin"))
            .unwrap()
            .write_gguf(&at("c.gguf"), Dtype::F32, "m", None)
            .unwrap();
        Weights::open(&at("c.gguf"))
            .unwrap()
            .write_llmc(&at("d.bin"), dtype)
            .unwrap();
        assert!(
            fs::read(at("a.bin")).unwrap() == fs::read(at("d.bin")).unwrap(),
            "{dtype}"
        );
    }
}

/// The order of llm.c's tensors, and that products lie there as `[out, in]`.
#[test]
fn a_checkpoint_of_llmc_is_laid_out_as_llmc_does() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("m.bin");
    let model = openai();
    save_llmc(&model, &path, Dtype::F32).unwrap();
    let bytes = fs::read(&path).unwrap();
    let header: Vec<i32> = bytes[..1024]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&of| i32::from_le_bytes(of))
        .collect();
    assert_eq!(header[..8], [20_240_326, 3, 16, 61, 2, 2, 8, 128]);
    assert!(header[8..].iter().all(|&rest| rest == 0));
    let numbers: Vec<f32> = bytes[1024..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&of| f32::from_le_bytes(of))
        .collect();
    let named = parameters(&model);
    let values = |name: &str| &named.iter().find(|tensor| tensor.name == name).unwrap().values;
    let (c, layers) = (8, 2);
    assert_eq!(numbers[..61 * c], values("wte.weight")[..]);
    assert!(numbers[61 * c..128 * c].iter().all(|&padding| padding == 0.0));
    let ln_1 = (128 + 16) * c;
    assert_eq!(numbers[ln_1 + c..ln_1 + 2 * c], values("h.1.ln_1.weight")[..]);
    // The second row of the first layer's query, key and value product: the weights of its second output.
    let qkv = ln_1 + 2 * layers * c;
    let second: Vec<f32> = (0..c)
        .map(|input| values("h.0.attn.c_attn.weight")[input * 3 * c + 1])
        .collect();
    assert_eq!(numbers[qkv + c..qkv + 2 * c], second);
    assert_eq!(numbers[numbers.len() - c..], values("ln_f.bias")[..]);
}

#[test]
fn every_format_computes_the_same() {
    let dir = tempdir().unwrap();
    let (llmc, gguf) = (dir.path().join("m.bin"), dir.path().join("m.gguf"));
    let model = openai();
    save_llmc(&model, &llmc, Dtype::F32).unwrap();
    save_gguf(&model, &gguf, Dtype::F32, "small", None).unwrap();
    let logits = |model: &Gpt2<Inference>| floats(model.forward(tokens::<Inference>(2, 16, 61, 3, &DEVICE)));
    for path in [llmc, gguf] {
        let other = Gpt2::<Inference>::load(path, &DEVICE).unwrap();
        assert_eq!(bits(&logits(&other)), bits(&logits(&model)));
    }
}

#[test]
fn what_a_format_has_no_key_for_is_refused_by_its_name() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("m");
    let refused = |variant: Variant, llmc: &str, gguf: Option<&str>| {
        let model: Gpt2<Inference> = Gpt2Config { variant, ..small() }.init(1, &DEVICE).unwrap();
        let message = save_llmc(&model, &path, Dtype::F32).unwrap_err().to_string();
        assert_eq!(message, format!("llm.c has no {llmc}; write the format hf"));
        match (save_gguf(&model, &path, Dtype::F32, "m", None), gguf) {
            (Ok(()), None) => fs::remove_file(&path).unwrap(),
            (Err(error), Some(expected)) => assert_eq!(
                error.to_string(),
                format!("GGUF has no {expected}; write the format hf")
            ),
            (result, _) => panic!("{variant:?}: {result:?}"),
        }
        assert!(!path.exists(), "nothing is written");
    };
    let openai = Variant::default();
    refused(
        Variant {
            n_inner: Some(24),
            ..openai
        },
        "`n_inner` of 24, expected 4 · n_embd",
        None,
    );
    refused(
        Variant {
            tie_word_embeddings: false,
            ..openai
        },
        "`tie_word_embeddings` of false, expected true",
        None,
    );
    let relu = "`activation_function` of relu, expected gelu_new";
    refused(
        Variant {
            activation_function: Activation::Relu,
            ..openai
        },
        relu,
        Some(relu),
    );
    let unscaled = "`scale_attn_weights` of false, expected true";
    refused(
        Variant {
            scale_attn_weights: false,
            ..openai
        },
        unscaled,
        Some(unscaled),
    );
    let by_layer = "`scale_attn_by_inverse_layer_idx` of true, expected false";
    refused(
        Variant {
            scale_attn_by_inverse_layer_idx: true,
            ..openai
        },
        by_layer,
        Some(by_layer),
    );
    let message = save_llmc(&self::openai(), &path, Dtype::F16).unwrap_err().to_string();
    assert_eq!(
        message,
        "llm.c has no `dtype` of f16, expected f32 or bf16; write the format hf"
    );
}

#[test]
fn a_vocabulary_is_written_and_passed_over() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let vocabulary = GgufVocabulary {
        tokens: ["a", "b", "ab", "Ġ", "<|endoftext|>"].map(str::to_owned).to_vec(),
        merges: vec!["a b".to_owned()],
        end_of_text: 4,
    };
    let model = openai();
    save_gguf(&model, &path, Dtype::F32, "small", Some(&vocabulary)).unwrap();
    assert_holds(&path, Format::Gguf, &model.config, &parameters(&model));
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    for part in ["tokenizer.ggml.merges", "<|endoftext|>", "[PAD60]", "gpt-2"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn a_model_that_is_no_gpt2_is_named() {
    let dir = tempdir().unwrap();
    let message = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let message = Weights::open(&path).unwrap_err().to_string();
        message
            .strip_prefix(&format!("{}: ", path.display()))
            .expect("it names the file")
            .to_owned()
    };
    let path = dir.path().join("m.bin");
    save_llmc(&openai(), &path, Dtype::F32).unwrap();
    let sound = fs::read(&path).unwrap();
    let mut older = sound.clone();
    older[4] = 2;
    assert_eq!(
        message("v", &older),
        "it is version 2 of llm.c's checkpoints, expected 3 (f32) or 5 (bf16)"
    );
    let cut = message("c", &sound[..sound.len() - 3]);
    assert!(
        cut.contains(&format!("it has {} bytes, expected {}", sound.len() - 3, sound.len())),
        "{cut}"
    );
    assert!(message("h", &sound[..100]).contains("expected a header of 256 numbers"));

    save_gguf(&openai(), &path, Dtype::F32, "m", None).unwrap();
    let sound = fs::read(&path).unwrap();
    let text = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = sound
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .unwrap();
        let mut bytes = sound.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    // The first value is the architecture; the keys have other words around the name.
    let at = sound
        .windows(12)
        .position(|window| window == b"\x04\0\0\0\0\0\0\0gpt2")
        .unwrap();
    let mut other = sound.clone();
    other[at + 8..at + 12].copy_from_slice(b"lama");
    assert_eq!(
        message("a", &other),
        "it is a model of the architecture \"lama\", expected \"gpt2\""
    );
    assert_eq!(
        message("b", &text("blk.1.ffn_up.bias", "blk.1.ffn_ap.bias")),
        "tensor `blk.1.ffn_ap.bias` is no parameter of a GPT-2"
    );
    assert!(message("d", &sound[..sound.len() - 40]).contains("lies past the end of the file"));
    assert_eq!(
        message("e", b"12345"),
        "no weights of a GPT-2: expected a directory with config.json and model.safetensors, a .safetensors file next to its config.json, a checkpoint of llm.c, or a GGUF file"
    );
    assert!(message("f", b"PK\x03\x04rest").starts_with("a pickle of PyTorch's"));
}
