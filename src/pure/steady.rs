//! What can be looked at while others write it: only what two looks have found the same is taken for the whole of it.

/// What was found last, and what was taken.
#[derive(Clone, Copy, Debug)]
pub struct Steady<T> {
    seen: T,
    taken: T,
}

impl<T: PartialEq + Copy> Steady<T> {
    /// All is as it was `found`, and that has been taken.
    pub fn new(found: T) -> Steady<T> {
        Steady { seen: found, taken: found }
    }

    /// Whether what is `found` now is to be taken: it is another than was taken last, and the same as the last time.
    pub fn takes(&mut self, found: T) -> bool {
        let is_steady = found == std::mem::replace(&mut self.seen, found);
        let takes = is_steady && found != self.taken;
        if takes {
            self.taken = found;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_is_taken_and_only_once() {
        let mut steady = Steady::new(1);
        let looks =
            [(1, false), (2, false), (3, false), (3, true), (3, false), (1, false), (3, false), (1, false), (1, true)];
        for (number, (found, taken)) in looks.into_iter().enumerate() {
            assert_eq!(steady.takes(found), taken, "look {number}");
        }
    }
}
