//! Files that are not as they were written, or not there any more.

use super::*;

#[test]
fn a_torn_tail_of_any_length_is_told_and_what_follows_counts() {
    for torn in 0..RECORD_BYTES {
        let case = Case::new(Durability::Process);
        (0..3).for_each(|number| _ = case.append(number));
        case.damage(1, |bytes| bytes.truncate(96 + torn));
        let next = open(&case.directory(), START, Durability::Process, SMALL, &case.faults);
        next.append(&[record(9)]).unwrap();
        let batch = case.all();
        assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 1, 9]);
        let told = if torn == 0 { vec![] } else { vec![damage(1, 96, torn as u64, DamageKind::CutShort)] };
        assert_eq!(batch.damage, told);
        // Told once: what comes next is read from behind it.
        let batch = read(&case.directory(), &LINEAGE, place(1, 96 + torn as u64), None, usize::MAX).unwrap();
        assert_eq!((batch.records.len(), batch.damage.len()), (1, 0));
    }
}

#[test]
fn a_flipped_bit_costs_one_record() {
    let case = Case::new(Durability::Process);
    (0..6).for_each(|number| _ = case.append(number));
    for bit in 0..8 * RECORD_BYTES {
        case.damage(1, |bytes| bytes[64 + bit / 8] ^= 1 << (bit % 8));
        let batch = case.all();
        assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(batch.damage, [damage(1, 64, 32, DamageKind::Corrupt)]);
        case.damage(1, |bytes| bytes[64 + bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn damage_side_by_side_is_told_as_one() {
    let case = Case::new(Durability::Process);
    (0..4).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| {
        bytes[32..96].fill(0);
        bytes.extend([0; 75]);
    });
    let batch = case.all();
    assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [2, 3]);
    let wanted = [
        damage(1, 32, 64, DamageKind::Corrupt),
        damage(1, 160, 64, DamageKind::Corrupt),
        damage(1, 224, 11, DamageKind::CutShort),
    ];
    assert_eq!(batch.damage, wanted);
    assert_eq!(
        batch.damage[2].to_string(),
        "journal segment 1 (0000000000000001.journal): 11 bytes at offset 224 are a record cut short; nothing was \
         charged for them, and the file is kept as 0000000000000001.damaged"
    );
}

#[test]
fn a_record_that_stands_elsewhere_is_none() {
    let case = Case::new(Durability::Process);
    (0..5).for_each(|number| _ = case.append(number));
    let other = std::fs::read(case.path(2)).unwrap();
    case.damage(1, |bytes| {
        bytes.copy_within(32..64, 64);
        bytes[96..128].copy_from_slice(&other[32..64]);
    });
    let batch = case.all();
    assert_eq!(batch.records.iter().map(number).collect::<Vec<_>>(), [0, 3, 4]);
    assert_eq!(batch.damage, [damage(1, 64, 64, DamageKind::Corrupt)]);
}

#[test]
fn records_that_were_there_are_missed() {
    let case = Case::new(Durability::Process);
    (0..3).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| bytes.truncate(64));
    let to = Some(case.journal.end());
    for from in [START, place(1, 96)] {
        let batch = read(&case.directory(), &LINEAGE, from, to, usize::MAX).unwrap();
        let gone = 64.max(from.offset_bytes);
        assert_eq!(batch.damage, [damage(1, gone, 128 - gone, DamageKind::Gone)]);
        assert_eq!((batch.end, batch.done), (place(1, 128), true));
    }
    // At a start that is no damage: a power loss may take what only the database still has.
    let batch = read(&case.directory(), &LINEAGE, place(1, 96), None, usize::MAX).unwrap();
    assert_eq!(batch, Batch { end: place(1, 96), done: true, ..Batch::default() });
}

#[test]
fn a_header_that_was_never_finished_is_damage_only_if_there_is_something() {
    for length in 0..=HEADER_BYTES {
        let case = Case::new(Durability::Process);
        case.damage(1, |bytes| bytes.truncate(length as usize));
        let wanted = match length {
            0 | HEADER_BYTES => vec![],
            _ => vec![damage(1, 0, length, DamageKind::CutShort)],
        };
        assert_eq!(case.all().damage, wanted);
        let next = open(&case.directory(), START, Durability::Process, SMALL, &case.faults);
        next.append(&[record(1)]).unwrap();
        assert_eq!(case.all().records, [record(1)]);
    }
}

#[test]
fn behind_a_header_with_a_flipped_bit_records_count() {
    let case = Case::new(Durability::Process);
    case.append(0);
    for bit in 0..8 * HEADER_BYTES as usize {
        case.damage(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let batch = case.all();
        assert_eq!(batch.records, [record(0)]);
        assert_eq!(batch.damage, [damage(1, 0, 32, DamageKind::Corrupt)]);
        case.damage(1, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
    }
}

#[test]
fn another_databases_journal_is_refused_and_stays() {
    let case = Case::new(Durability::Process);
    case.append(0);
    let other: Lineage = [1; 16];
    let refused = read(&case.directory(), &other, START, None, 1).unwrap_err();
    assert!(matches!(&refused, JournalError::Foreign(path) if *path == case.path(1)), "{refused}");
    let refused = Journal::open(&case.directory(), other, place(5, 32), Durability::Process).unwrap_err();
    assert!(matches!(&refused, JournalError::Foreign(path) if *path == case.path(1)), "{refused}");
    assert_eq!(case.numbers(), [0]);
}

#[test]
fn another_versions_journal_is_refused() {
    let case = Case::new(Durability::Process);
    case.damage(1, |bytes| {
        bytes[6] = 2;
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
    });
    let refused = read(&case.directory(), &LINEAGE, START, None, 1).unwrap_err();
    assert!(matches!(refused, JournalError::Version { found: 2, .. }), "{refused}");
}

#[test]
fn a_missing_segment_is_named_and_an_empty_file_stands_in_for_it() {
    let case = Case::new(Durability::Process);
    (0..20).for_each(|number| _ = case.append(number));
    let end = case.journal.end();
    let missing = |from: Place, to: Option<Place>| match read(&case.directory(), &LINEAGE, from, to, 100) {
        Err(JournalError::Missing { first, last, .. }) => Some((first, last)),
        Ok(_) => None,
        Err(other) => panic!("{other}"),
    };
    for segment in [1, 3, 4] {
        std::fs::remove_file(case.path(segment)).unwrap();
    }
    assert_eq!(missing(START, None), Some((1, 1)));
    assert_eq!(missing(place(1, 160), None), Some((3, 4)));
    assert_eq!(missing(place(2, 32), Some(end)), Some((3, 4)));
    // The one in which the folded place lies may have been deleted, not those behind.
    assert_eq!(missing(place(3, 160), None), Some((4, 4)));
    assert_eq!(missing(place(4, 64), None), None);
    // But not when there is more in it.
    assert_eq!(missing(place(4, 64), Some(place(4, 96))), Some((4, 4)));
    assert_eq!(missing(place(4, 96), Some(place(4, 96))), None);
    std::fs::remove_file(case.path(5)).unwrap();
    assert_eq!(missing(place(3, 160), Some(end)), Some((4, 5)));
    for segment in [3, 4] {
        std::fs::write(case.path(segment), []).unwrap();
    }
    assert_eq!(missing(place(2, 32), None), None);
}

#[test]
fn a_damaged_segment_is_kept_and_not_read_again() {
    let case = Case::new(Durability::Process);
    (0..5).for_each(|number| _ = case.append(number));
    case.damage(1, |bytes| bytes[40] ^= 1);
    let bytes = std::fs::read(case.path(1)).unwrap();
    keep_damaged(&case.directory(), 1).unwrap();
    keep_damaged(&case.directory(), 1).unwrap();
    assert_eq!(case.all().records.len(), 4);
    case.journal.forget(place(2, 64)).unwrap();
    assert_eq!(std::fs::read(case.directory().join("0000000000000001.damaged")).unwrap(), bytes);
    let batch = read(&case.directory(), &LINEAGE, place(1, 160), None, 100).unwrap();
    assert_eq!((batch.records, batch.damage), (vec![record(4)], vec![]));
    keep_damaged(&case.directory(), 1).unwrap();
    keep_damaged(&case.directory(), 7).unwrap_err();
}
