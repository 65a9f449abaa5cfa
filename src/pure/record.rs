//! One line of the ledger's journal as a value: what was charged, in 32 bytes that tell whether they are whole.
//!
//! Little endian; what is not named is zero.
//!
//! | bytes | charge (kind 1) | ceiling (kind 2) |
//! |---|---|---|
//! | 0 to 3 | CRC-32 of the place and of bytes 4 to 31 | the same |
//! | 4 | kind | kind |
//! | 6 and 7 | API | |
//! | 8 to 11 | account | account |
//! | 12 to 19 | Unix time in seconds | Unix time in seconds |
//! | 20 to 23 | key | credits, low half |
//! | 24 to 27 | credits taken from the month | credits, high half |
//! | 28 to 31 | credits taken from the bonus | |
//!
//! The place is the segment and the offset, 8 bytes each. It is not stored, yet it is part of the sum: a record that
//! stands where it was not written, as an old block does that a file system brings back, is no record.

/// How long every record is.
pub const RECORD_BYTES: usize = 32;

const CHARGE: u8 = 1;
const CEILING: u8 = 2;

/// What the journal tells the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Credits charged for a successful call.
    Charge(Charge),
    /// The most credits that a plan gives for a billing month. Written before the first charge under it.
    Ceiling {
        /// Whose month it is.
        account: u32,
        /// A moment in that month, as Unix time.
        unix_s: u64,
        /// The most credits.
        credits: u64,
    },
}

/// Credits that one call costs, and who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Who pays.
    pub account: u32,
    /// The key that the call came with.
    pub key: u32,
    /// The API that was called.
    pub api: u16,
    /// When, as Unix time.
    pub unix_s: u64,
    /// Credits taken from the month's.
    pub month: u32,
    /// Credits taken from the bonus.
    pub bonus: u32,
}

/// Where in the journal a record stands, or where the journal ends. Later is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the segment; the first is 1.
    pub segment: u64,
    /// Bytes from the segment's beginning.
    pub offset_bytes: u64,
}

impl Record {
    /// The record's bytes, good at one place only.
    pub fn encode(&self, at: Place) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let (kind, account, unix_s) = match self {
            Record::Charge(charge) => (CHARGE, charge.account, charge.unix_s),
            Record::Ceiling { account, unix_s, .. } => (CEILING, *account, *unix_s),
        };
        bytes[4] = kind;
        bytes[8..12].copy_from_slice(&account.to_le_bytes());
        bytes[12..20].copy_from_slice(&unix_s.to_le_bytes());
        match self {
            Record::Charge(charge) => {
                bytes[6..8].copy_from_slice(&charge.api.to_le_bytes());
                bytes[20..24].copy_from_slice(&charge.key.to_le_bytes());
                bytes[24..28].copy_from_slice(&charge.month.to_le_bytes());
                bytes[28..32].copy_from_slice(&charge.bonus.to_le_bytes());
            }
            Record::Ceiling { credits, .. } => bytes[20..28].copy_from_slice(&credits.to_le_bytes()),
        }
        let sum = checksum(&bytes, at);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The record that these bytes are at this place; `None` when they are none that was written there.
    pub fn decode(bytes: &[u8; RECORD_BYTES], at: Place) -> Option<Record> {
        if field(bytes, 0) != checksum(bytes, at).to_le_bytes() {
            return None;
        }
        let account = u32::from_le_bytes(field(bytes, 8));
        let unix_s = u64::from_le_bytes(field(bytes, 12));
        let charge = Charge {
            account,
            key: u32::from_le_bytes(field(bytes, 20)),
            api: u16::from_le_bytes(field(bytes, 6)),
            unix_s,
            month: u32::from_le_bytes(field(bytes, 24)),
            bonus: u32::from_le_bytes(field(bytes, 28)),
        };
        match bytes[4] {
            CHARGE => Some(Record::Charge(charge)),
            CEILING => Some(Record::Ceiling { account, unix_s, credits: u64::from_le_bytes(field(bytes, 20)) }),
            _ => None,
        }
    }
}

fn field<const BYTES: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; BYTES] {
    std::array::from_fn(|byte| bytes[at + byte])
}

fn checksum(bytes: &[u8; RECORD_BYTES], at: Place) -> u32 {
    let mut summed = [0; 16 + RECORD_BYTES - 4];
    summed[..8].copy_from_slice(&at.segment.to_le_bytes());
    summed[8..16].copy_from_slice(&at.offset_bytes.to_le_bytes());
    summed[16..].copy_from_slice(&bytes[4..]);
    crc32fast::hash(&summed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let charge = any::<(u32, u32, u16, u64, u32, u32)>()
            .prop_map(|(account, key, api, unix_s, month, bonus)| Charge { account, key, api, unix_s, month, bonus });
        prop_oneof![
            charge.prop_map(Record::Charge),
            any::<(u32, u64, u64)>().prop_map(|(account, unix_s, credits)| Record::Ceiling {
                account,
                unix_s,
                credits
            }),
        ]
    }

    fn places() -> impl Strategy<Value = Place> {
        any::<(u64, u64)>().prop_map(|(segment, offset_bytes)| Place { segment, offset_bytes })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in records(), at in places()) {
            prop_assert_eq!(Record::decode(&record.encode(at), at), Some(record));
        }

        #[test]
        fn a_single_flipped_bit_is_refused(record in records(), at in places()) {
            let whole = record.encode(at);
            for bit in 0..8 * RECORD_BYTES {
                let mut bytes = whole;
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(Record::decode(&bytes, at), None, "bit {}", bit);
            }
        }

        #[test]
        fn any_other_place_is_refused(record in records(), at in places(), other in places(), by in 1..u32::MAX) {
            let bytes = record.encode(at);
            // Within 32 bits of each other, which two places of one segment always are, CRC-32 tells any two apart.
            let near = Place { offset_bytes: at.offset_bytes ^ u64::from(by), ..at };
            let segment_near = Place { segment: at.segment ^ u64::from(by), ..at };
            for place in [near, segment_near, other] {
                prop_assert_eq!(Record::decode(&bytes, place), None);
            }
        }

        #[test]
        fn zeros_are_refused(at in places()) {
            prop_assert_eq!(Record::decode(&[0; RECORD_BYTES], at), None);
        }
    }

    #[test]
    fn zeros_with_a_sum_that_is_right_are_refused() {
        let at = Place { segment: 1, offset_bytes: 32 };
        let mut bytes = [0; RECORD_BYTES];
        let sum = checksum(&bytes, at);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Record::decode(&bytes, at), None);
    }

    #[test]
    fn a_record_stays_readable_for_later_versions() {
        let at = Place { segment: 7, offset_bytes: 4_128 };
        let charge = Charge { account: 1, key: 2, api: 3, unix_s: 1_765_924_235, month: 4, bonus: 5 };
        let bytes = Record::Charge(charge).encode(at);
        assert_eq!(bytes[4..], *b"\x01\0\x03\0\x01\0\0\0\x8b\xdd\x41\x69\0\0\0\0\x02\0\0\0\x04\0\0\0\x05\0\0\0");
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes[..4]), "5e0de2c3");
    }
}
