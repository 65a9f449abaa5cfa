//! When a delivery that failed is tried again.

/// The waits between attempts, in seconds: 5 s, 5 min, 30 min, 2 h, 4 h, 6 h, 9 h. With all that [`wait_s`] adds, the
/// last attempt is less than a day after the first.
const WAITS_S: [u64; 7] = [5, 300, 1_800, 7_200, 14_400, 21_600, 32_400];

/// The most attempts there are.
pub const ATTEMPTS_MAX: u32 = WAITS_S.len() as u32 + 1;

/// How many seconds to wait after so many attempts, the latest of which failed; `None` when there is no other.
///
/// Up to a tenth is added, by `random`, which can be any number: what failed together is not tried again together.
pub fn wait_s(attempts: u32, random: u64) -> Option<u64> {
    let wait_s = WAITS_S.get(usize::try_from(attempts.checked_sub(1)?).ok()?)?;
    Some(wait_s + random % (wait_s / 10 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_whatever_chance_adds_and_end_within_a_day() {
        let waits = |random| (1..ATTEMPTS_MAX).map(move |attempts| wait_s(attempts, random).unwrap());
        assert_eq!(waits(0).collect::<Vec<_>>(), WAITS_S);
        // The most that can be added to each.
        let longest: Vec<u64> = WAITS_S.iter().zip(1..).map(|(wait, n)| wait_s(n, wait / 10).unwrap()).collect();
        assert_eq!(longest[..3], [5, 330, 1_980]);
        assert!(longest.iter().sum::<u64>() < 24 * 3_600);
        assert!(longest.iter().zip(&WAITS_S[1..]).all(|(longest, next)| longest < next));
        for random in [1, 99, u64::MAX] {
            assert!(waits(random).zip(&longest).all(|(wait, longest)| wait <= *longest), "{random}");
        }
    }

    #[test]
    fn after_the_last_attempt_there_is_no_other() {
        assert_eq!((wait_s(ATTEMPTS_MAX, 0), wait_s(u32::MAX, 0), wait_s(0, 0)), (None, None, None));
    }
}
