//! The part of a document that is answered: what lies at a pointer, in the envelope or without.

use super::super::envelope;
use super::super::format::Reason;
use super::super::format::emit::{Emit, Emitted, Writer};
use super::super::pointer::{Pointer, Step};

/// Passes on the events of what lies at the pointer, and no others. What comes before the first of them is sent together
/// with it, so that nothing is written for a document that lacks the place.
pub struct Select<W> {
    writer: W,
    pointer: Pointer,
    wrap: bool,
    place: Place,
    /// The open containers that lead to the place.
    way: Vec<Container>,
    found: bool,
}

#[derive(Clone, Copy)]
enum Place {
    /// Among the members of the last container on the way, or before the document.
    OnWay,
    /// In a value beside the way, within so many of its containers.
    Beside(usize),
    /// In the value that the pointer names, within so many of its containers.
    Inside(usize),
}

/// A container on the way.
struct Container {
    array: bool,
    /// Of an array: items so far.
    items: usize,
    /// The member that comes next is the one that the pointer names.
    next: bool,
    /// That member has come.
    passed: bool,
}

impl<W: Writer> Select<W> {
    /// `wrap` puts the part into the envelope.
    pub fn new(writer: W, pointer: Pointer, wrap: bool) -> Select<W> {
        Select { writer, pointer, wrap, place: Place::OnWay, way: Vec::new(), found: false }
    }

    /// Ends the document.
    ///
    /// # Errors
    /// When it had nothing at the pointer.
    pub fn finish(&mut self) -> Emitted {
        if !self.found {
            return Err(Reason::NothingThere);
        }
        if self.wrap { envelope::close(&mut self.writer) } else { Ok(()) }
    }

    /// The last container on the way, and the step that leads on from it.
    fn parent(&mut self) -> Option<(&mut Container, &Step)> {
        let last = self.way.len().checked_sub(1)?;
        Some((&mut self.way[last], &self.pointer.steps()[last]))
    }

    /// True when the value that begins is on the way to the place, or is it.
    fn on_way(&mut self) -> bool {
        let Some((parent, step)) = self.parent() else { return true };
        if parent.array {
            parent.next = step.index == Some(parent.items);
            parent.items += 1;
        }
        std::mem::take(&mut parent.next)
    }

    /// The value at the place begins.
    fn find(&mut self) -> Emitted {
        self.found = true;
        if self.wrap { envelope::open(&mut self.writer) } else { Ok(()) }
    }

    /// A container begins; true when it is passed on.
    fn begin(&mut self, array: bool) -> Result<bool, Reason> {
        let place = self.place;
        self.place = match place {
            Place::Inside(open) => Place::Inside(open + 1),
            Place::Beside(open) => Place::Beside(open + 1),
            Place::OnWay if !self.on_way() => Place::Beside(1),
            Place::OnWay if self.way.len() == self.pointer.steps().len() => {
                self.find()?;
                Place::Inside(1)
            }
            Place::OnWay => {
                self.way.push(Container { array, items: 0, next: false, passed: false });
                Place::OnWay
            }
        };
        Ok(matches!(self.place, Place::Inside(_)))
    }

    /// A container ends; true when it is passed on.
    fn end(&mut self) -> bool {
        let inside = matches!(self.place, Place::Inside(_));
        match &mut self.place {
            Place::Inside(1) | Place::Beside(1) => self.place = Place::OnWay,
            Place::Inside(open) | Place::Beside(open) => *open -= 1,
            Place::OnWay => drop(self.way.pop()),
        }
        inside
    }

    /// A scalar comes; true when it is passed on.
    fn scalar(&mut self) -> Result<bool, Reason> {
        match self.place {
            Place::Inside(_) => Ok(true),
            Place::Beside(_) => Ok(false),
            Place::OnWay => {
                let found = self.on_way() && self.way.len() == self.pointer.steps().len();
                if found {
                    self.find()?;
                }
                Ok(found)
            }
        }
    }
}

impl<W: Writer> Writer for Select<W> {
    fn out(&mut self) -> &mut Vec<u8> {
        self.writer.out()
    }
}

impl<W: Writer> Emit for Select<W> {
    fn begin_object(&mut self) -> Emitted {
        if self.begin(false)? { self.writer.begin_object() } else { Ok(()) }
    }
    fn end_object(&mut self) -> Emitted {
        if self.end() { self.writer.end_object() } else { Ok(()) }
    }
    fn key(&mut self, key: &str) -> Emitted {
        match self.place {
            Place::Inside(_) => return self.writer.key(key),
            Place::Beside(_) => return Ok(()),
            Place::OnWay => {}
        }
        if let Some((parent, step)) = self.parent()
            && step.key == key
        {
            // Readers differ in which of two they take, and the first may have been passed on.
            if std::mem::replace(&mut parent.passed, true) {
                return Err(Reason::DuplicateKey);
            }
            parent.next = true;
        }
        Ok(())
    }
    fn begin_array(&mut self) -> Emitted {
        if self.begin(true)? { self.writer.begin_array() } else { Ok(()) }
    }
    fn end_array(&mut self) -> Emitted {
        if self.end() { self.writer.end_array() } else { Ok(()) }
    }
    fn null(&mut self) -> Emitted {
        if self.scalar()? { self.writer.null() } else { Ok(()) }
    }
    fn bool(&mut self, value: bool) -> Emitted {
        if self.scalar()? { self.writer.bool(value) } else { Ok(()) }
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        if self.scalar()? { self.writer.number(lexeme) } else { Ok(()) }
    }
    fn string(&mut self, text: &str) -> Emitted {
        if self.scalar()? { self.writer.string(text) } else { Ok(()) }
    }
}
