//! What bytes that are not UTF-8 look like, so that the error can say how to convert them.

use crate::error::Encoding;

/// So much of the beginning of a file is looked at.
const BEGINNING: usize = 1 << 12;

/// UTF-16 and UTF-32, told by the beginning of a file: by a byte order mark, or by the zeros that plain letters have in
/// UTF-16. Such text may be valid UTF-8 as it stands, full of NUL characters.
pub(super) fn wide_encoding(text: &[u8]) -> Option<Encoding> {
    if text.starts_with(b"\xFF\xFE\0\0") || text.starts_with(b"\0\0\xFE\xFF") {
        return Some(Encoding::Utf32);
    }
    if text.starts_with(b"\xFF\xFE") || text.starts_with(b"\xFE\xFF") {
        return Some(Encoding::Utf16);
    }
    let (pairs, _) = text[..text.len().min(BEGINNING)].as_chunks::<2>();
    // In any language spaces and line ends are among these; in UTF-8 text there is no NUL.
    let low_first = pairs.iter().filter(|pair| pair[0] != 0 && pair[1] == 0).count();
    let high_first = pairs.iter().filter(|pair| pair[0] == 0 && pair[1] != 0).count();
    let mostly = |count: usize| pairs.len() >= 2 && 2 * count > pairs.len();
    match (low_first, high_first) {
        (count, 0) if mostly(count) => Some(Encoding::Utf16Le),
        (0, count) if mostly(count) => Some(Encoding::Utf16Be),
        _ => None,
    }
}

/// What text looks like that is not UTF-8.
pub(super) fn encoding_of(text: &[u8]) -> Encoding {
    if let Some(wide) = wide_encoding(text) {
        return wide;
    }
    // Text has few control characters, in any encoding of one byte a letter; of arbitrary bytes a tenth are.
    let controls = text
        .iter()
        .filter(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31))
        .count();
    if 50 * controls > text.len() {
        return Encoding::Binary;
    }
    // Text in another encoding has few runs of bytes that are valid in UTF-8 by chance.
    let (mut valid, mut invalid) = (0, 0);
    for chunk in text.utf8_chunks() {
        valid += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    // Windows-1252 leaves five bytes undefined, at which a conversion from it stops.
    let undefined = |byte: &u8| matches!(byte, 0x81 | 0x8D | 0x8F | 0x90 | 0x9D);
    if valid > invalid {
        Encoding::DamagedUtf8
    } else if text.iter().any(|byte| matches!(byte, 0x80..=0x9F)) && !text.iter().any(undefined) {
        Encoding::Windows1252
    } else {
        Encoding::Latin1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn encodings_are_told_apart() {
        let text = "Café au lait, déjà vu.\n";
        let latin: Vec<u8> = text.chars().map(|character| character as u8).collect();
        let mut damaged = text.as_bytes().to_vec();
        damaged[15] = 0xFF;
        for (bytes, encoding) in [
            (utf16(&format!("\u{feff}{text}"), u16::to_le_bytes), Encoding::Utf16),
            (utf16(&format!("\u{feff}{text}"), u16::to_be_bytes), Encoding::Utf16),
            (utf16(text, u16::to_le_bytes), Encoding::Utf16Le),
            (utf16(text, u16::to_be_bytes), Encoding::Utf16Be),
            (b"\xFF\xFE\0\0a\0\0\0".to_vec(), Encoding::Utf32),
            (latin, Encoding::Latin1),
            (b"\x93caf\xE9\x94".to_vec(), Encoding::Windows1252),
            (b"\x93caf\xE9\x9D".to_vec(), Encoding::Latin1),
            (damaged, Encoding::DamagedUtf8),
            ((0..=255).cycle().take(1000).collect(), Encoding::Binary),
        ] {
            assert_eq!(encoding_of(&bytes), encoding, "{bytes:?}");
        }
    }

    #[test]
    fn plain_text_is_not_wide() {
        for text in ["", "a", "a\0", "plain text", "some\0zeros\0here", "雨が降る"] {
            assert_eq!(wide_encoding(text.as_bytes()), None, "{text:?}");
        }
    }
}
