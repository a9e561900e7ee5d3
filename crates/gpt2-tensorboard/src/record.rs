//! The frame of a record in a TFRecord file (TensorFlow, `tensorflow/core/lib/io/record_writer.cc`): length, checksum
//! of the length, data, checksum of the data, all little-endian.

use std::io::{self, Write};

/// What is added to a rotated checksum (`kMaskDelta` in TensorFlow's `crc32c.h`).
const MASK_DELTA: u32 = 0xa282_ead8;

/// A CRC-32C, rotated and shifted: so that the checksum of data that holds checksums does not become weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(MASK_DELTA)
}

/// Writes `data` as one record.
pub(crate) fn write(file: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked_crc(&length).to_le_bytes())?;
    file.write_all(data)?;
    file.write_all(&masked_crc(data).to_le_bytes())
}

/// The records of a file, each with both checksums checked.
#[cfg(test)]
pub(crate) fn read_all(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], &'static str> {
        let (first, rest) = bytes.split_first_chunk().ok_or("the file ends in a frame")?;
        *bytes = rest;
        Ok(*first)
    }
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let length: [u8; 8] = number(&mut bytes)?;
        if u32::from_le_bytes(number(&mut bytes)?) != masked_crc(&length) {
            return Err("checksum of the length");
        }
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| "length")?;
        let (data, rest) = bytes.split_at_checked(length).ok_or("the file ends in a record")?;
        bytes = rest;
        if u32::from_le_bytes(number(&mut bytes)?) != masked_crc(data) {
            return Err("checksum of the data");
        }
        records.push(data.to_vec());
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unmasked(masked: u32) -> u32 {
        masked.wrapping_sub(MASK_DELTA).rotate_left(15)
    }

    #[test]
    fn checksums_are_castagnoli_s() {
        // RFC 3720, appendix B.4.
        let counting: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        for (data, crc) in [
            (vec![0; 32], 0x8a91_36aa),
            (vec![0xff; 32], 0x62a8_ab43),
            (counting, 0x46dd_794e),
            (falling, 0x113f_db5c),
            (b"123456789".to_vec(), 0xe306_9283),
        ] {
            assert_eq!(unmasked(masked_crc(&data)), crc);
        }
    }

    proptest! {
        #[test]
        fn records_come_back(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..8)) {
            let mut file = Vec::new();
            for record in &records {
                write(&mut file, record).unwrap();
            }
            prop_assert_eq!(file.len(), records.iter().map(|record| record.len() + 16).sum::<usize>());
            prop_assert_eq!(read_all(&file).unwrap(), records);
        }

        #[test]
        fn a_changed_byte_is_noticed(data in prop::collection::vec(any::<u8>(), 1..50), at: usize, bit in 0..8) {
            let mut file = Vec::new();
            write(&mut file, &data).unwrap();
            let at = at % file.len();
            file[at] ^= 1_u8 << bit;
            prop_assert!(read_all(&file).is_err());
        }
    }
}
