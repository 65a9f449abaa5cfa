//! The journal against a model of it: whatever happens to it, each acknowledged record is folded once.

use proptest::prelude::*;

use super::*;

/// What a model of the journal may be told to do.
#[derive(Clone, Debug)]
enum Step {
    /// So many records, with room for so many bytes.
    Append(usize, Option<usize>),
    /// A sync, which may fail, and then the cut too.
    Sync { fails: bool, cut_fails: bool },
    /// A folder's round.
    Fold,
    /// An end by SIGKILL, and another start.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_usize).prop_map(|records| Step::Append(records, None)),
        1 => (1..4_usize, 0..130_usize).prop_map(|(records, room)| Step::Append(records, Some(room))),
        2 => any::<(bool, bool)>().prop_map(|(fails, cut_fails)| Step::Sync { fails, cut_fails }),
        1 => Just(Step::Fold),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn whatever_happens_each_acknowledged_record_is_folded_once(power in any::<bool>(), steps in steps()) {
        let durability = if power { Durability::Power } else { Durability::Process };
        let data = tempfile::tempdir().unwrap();
        let faults = Faults::default();
        let mut journal = open(data.path(), START, durability, SMALL, &faults);
        let (mut folded, mut at) = (Vec::new(), START);
        // What is in the journal for good, and what a sync that fails would take back.
        let (mut kept, mut open_to_loss) = (Vec::new(), Vec::new());
        let mut next = 0;
        for step in steps.into_iter().chain([Step::Sync { fails: false, cut_fails: false }, Step::Fold]) {
            match step {
                Step::Append(count, room) => {
                    let numbers: Vec<u32> = (next..).take(count).collect();
                    next += count as u32;
                    faults.leave_room(room);
                    let records: Vec<Record> = numbers.iter().copied().map(record).collect();
                    if journal.append(&records).is_ok() {
                        if power { &mut open_to_loss } else { &mut kept }.extend(numbers);
                    }
                    faults.leave_room(None);
                }
                Step::Sync { fails, cut_fails } => {
                    faults.fail_syncs(fails);
                    faults.fail_cuts(cut_fails);
                    if journal.sync().is_ok() {
                        kept.append(&mut open_to_loss);
                    } else if power {
                        open_to_loss.clear();
                    }
                    faults.fail_syncs(false);
                    faults.fail_cuts(false);
                    // A cut that failed is done before anything else; here, so that a restart finds it done.
                    journal.sync().unwrap();
                    kept.append(&mut open_to_loss);
                }
                Step::Fold => {
                    let batch = read(data.path(), &LINEAGE, at, Some(journal.end()), usize::MAX).unwrap();
                    prop_assert!(batch.done && batch.damage.is_empty(), "{:?}", batch.damage);
                    folded.extend(batch.records.iter().map(number));
                    at = batch.end;
                    journal.forget(at).unwrap();
                }
                Step::Restart => {
                    drop(journal);
                    kept.append(&mut open_to_loss);
                    let batch = read(data.path(), &LINEAGE, at, None, usize::MAX).unwrap();
                    prop_assert!(batch.done && batch.damage.is_empty(), "{:?}", batch.damage);
                    folded.extend(batch.records.iter().map(number));
                    at = batch.end;
                    journal = open(data.path(), at, durability, SMALL, &faults);
                }
            }
        }
        prop_assert_eq!(folded, kept);
    }
}
