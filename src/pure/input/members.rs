//! The serde side of an input: what JSON and YAML have in common.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Fault, Input, Value};

/// Fills an input from the members of one object. What serde cannot carry as an error is left in `fault`.
pub(super) struct Members<'i, 'a, S> {
    pub(super) input: &'i mut Input<'a>,
    pub(super) fault: &'i mut Option<Fault>,
    /// Reads the value of a known parameter in the manner of the format.
    pub(super) value: S,
}

impl<'a, S: DeserializeSeed<'a, Value = Value<'a>> + Copy> DeserializeSeed<'a> for Members<'_, 'a, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'a, S: DeserializeSeed<'a, Value = Value<'a>> + Copy> Visitor<'a> for Members<'_, 'a, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(known) = members.next_key_seed(Name(self.input))? {
            let Some(index) = known else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = members.next_value_seed(self.value)?;
            if let Err(fault) = self.input.put(index, value) {
                *self.fault = Some(fault);
                return Err(A::Error::custom("duplicate"));
            }
        }
        Ok(())
    }
}

/// Reads a member's name as the index of a known parameter. YAML has names that are no text; none of them is known.
struct Name<'i, 'a>(&'i Input<'a>);

impl<'de> DeserializeSeed<'de> for Name<'_, '_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Option<usize>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Name<'_, '_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.index(name))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Option<usize>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Option<usize>, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| None)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Option<usize>, A::Error> {
        IgnoredAny.visit_map(members).map(|_| None)
    }
}
