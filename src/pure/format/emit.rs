//! The event stream between documents and formats: the trait every emitter implements, and the way from serde to it.

use std::mem;

use serde::ser::{self, Serialize};

use super::{DEPTH_MAX, EncodeError, Reason};

/// What an event answers: nothing, or why the format cannot carry the document.
pub type Emitted = Result<(), Reason>;

/// Receives a document as events, in document order, and writes it in one format.
///
/// Whoever sends the events keeps them well-formed: begins and ends match, a key comes before every value of an
/// object and nowhere else, exactly one value is sent at the top, and nothing nests deeper than [`DEPTH_MAX`], or one more
/// in the envelope.
pub trait Emit {
    /// False for an emitter that heeds no text: it may get no keys, and gets numbers and strings that are empty.
    const TEXT: bool = true;

    /// An object opens.
    fn begin_object(&mut self) -> Emitted;
    /// The innermost open object closes.
    fn end_object(&mut self) -> Emitted;
    /// The key of the value that comes next.
    fn key(&mut self, key: &str) -> Emitted;
    /// An array opens.
    fn begin_array(&mut self) -> Emitted;
    /// The innermost open array closes.
    fn end_array(&mut self) -> Emitted;
    /// A null.
    fn null(&mut self) -> Emitted;
    /// A boolean.
    fn bool(&mut self, value: bool) -> Emitted;
    /// A number, spelled as in JSON (RFC 8259 section 6) and kept to the digit.
    fn number(&mut self, lexeme: &str) -> Emitted;
    /// A string.
    fn string(&mut self, text: &str) -> Emitted;
}

/// An emitter whose text goes to a buffer that it is lent, so that it can wait for the next piece of a stream without
/// borrowing anything.
pub trait Writer: Emit {
    /// The end of the text; a buffer of its own that stays empty while it is lent none.
    fn out(&mut self) -> &mut Vec<u8>;

    /// Lends the writer `out` for as long as `write` takes.
    fn write_to<T>(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Self) -> T) -> T {
        mem::swap(self.out(), out);
        let written = write(self);
        mem::swap(self.out(), out);
        written
    }
}

/// Appends a line break and an indent of two spaces a level; of levels there are [`DEPTH_MAX`] and the envelope's.
pub(super) fn new_line(levels: usize, out: &mut Vec<u8>) {
    const LINE: [u8; 1 + 2 * (DEPTH_MAX + 1)] = {
        let mut line = [b' '; 1 + 2 * (DEPTH_MAX + 1)];
        line[0] = b'\n';
        line
    };
    out.extend_from_slice(&LINE[..1 + 2 * levels]);
}

/// Sends a serde document to an emitter, shaped as serde_json would write it.
///
/// # Errors
/// Those of the emitter, a map key that is neither text nor a number nor a boolean, and nesting beyond [`DEPTH_MAX`].
pub fn send<T: Serialize + ?Sized>(document: &T, emit: &mut impl Emit) -> Result<(), EncodeError> {
    document.serialize(Value { emit, depth: 0 })
}

/// Serializes one value.
struct Value<'a, E> {
    emit: &'a mut E,
    depth: usize,
}

/// Serializes what lies between the begin and the end of a container.
struct Inside<'a, E> {
    emit: &'a mut E,
    depth: usize,
    /// An enum variant with content is an object of one key around the content.
    wrapped: bool,
}

impl<'a, E: Emit> Value<'a, E> {
    fn object(self) -> Result<Inside<'a, E>, EncodeError> {
        let inside = self.deeper()?;
        inside.emit.begin_object()?;
        Ok(inside)
    }

    fn array(self) -> Result<Inside<'a, E>, EncodeError> {
        let inside = self.deeper()?;
        inside.emit.begin_array()?;
        Ok(inside)
    }

    /// Opens the object of one key that stands for an enum variant; what is left to write is its value.
    fn variant(self, name: &str) -> Result<Value<'a, E>, EncodeError> {
        let Inside { emit, depth, .. } = self.object()?;
        emit.key(name)?;
        Ok(Value { emit, depth })
    }

    fn deeper(self) -> Result<Inside<'a, E>, EncodeError> {
        if self.depth == DEPTH_MAX {
            return Err(Reason::TooDeep.into());
        }
        Ok(Inside { emit: self.emit, depth: self.depth + 1, wrapped: false })
    }

    fn integer(self, value: impl itoa::Integer) -> Result<(), EncodeError> {
        Ok(self.emit.number(itoa::Buffer::new().format(value))?)
    }

    /// Floats are spelled by serde_json, so that every format shows the digits that JSON shows; those that JSON
    /// lacks (NaN and the infinities) are null there and here.
    fn float(self, value: impl Serialize) -> Result<(), EncodeError> {
        let lexeme = serde_json::to_string(&value).map_err(|_| Reason::NotSerializable)?;
        let sent = if lexeme == "null" { self.emit.null() } else { self.emit.number(&lexeme) };
        Ok(sent?)
    }
}

impl<E: Emit> Inside<'_, E> {
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Value { emit: &mut *self.emit, depth: self.depth })
    }

    fn end_object(self) -> Result<(), EncodeError> {
        self.emit.end_object()?;
        if self.wrapped {
            self.emit.end_object()?;
        }
        Ok(())
    }

    fn end_array(self) -> Result<(), EncodeError> {
        self.emit.end_array()?;
        if self.wrapped {
            self.emit.end_object()?;
        }
        Ok(())
    }
}

impl<'a, E: Emit> ser::Serializer for Value<'a, E> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Inside<'a, E>;
    type SerializeTuple = Inside<'a, E>;
    type SerializeTupleStruct = Inside<'a, E>;
    type SerializeTupleVariant = Inside<'a, E>;
    type SerializeMap = Inside<'a, E>;
    type SerializeStruct = Inside<'a, E>;
    type SerializeStructVariant = Inside<'a, E>;

    fn serialize_bool(self, value: bool) -> Result<(), EncodeError> {
        Ok(self.emit.bool(value)?)
    }
    fn serialize_i8(self, value: i8) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_i16(self, value: i16) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_i32(self, value: i32) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_i64(self, value: i64) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_i128(self, value: i128) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_u8(self, value: u8) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_u16(self, value: u16) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_u32(self, value: u32) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_u64(self, value: u64) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_u128(self, value: u128) -> Result<(), EncodeError> {
        self.integer(value)
    }
    fn serialize_f32(self, value: f32) -> Result<(), EncodeError> {
        self.float(value)
    }
    fn serialize_f64(self, value: f64) -> Result<(), EncodeError> {
        self.float(value)
    }
    fn serialize_char(self, value: char) -> Result<(), EncodeError> {
        Ok(self.emit.string(value.encode_utf8(&mut [0; 4]))?)
    }
    fn serialize_str(self, value: &str) -> Result<(), EncodeError> {
        Ok(self.emit.string(value)?)
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<(), EncodeError> {
        self.collect_seq(value)
    }
    fn serialize_none(self) -> Result<(), EncodeError> {
        Ok(self.emit.null()?)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), EncodeError> {
        Ok(self.emit.null()?)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        Ok(self.emit.null()?)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), EncodeError> {
        Ok(self.emit.string(variant)?)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        let Value { emit, depth } = self.variant(variant)?;
        value.serialize(Value { emit: &mut *emit, depth })?;
        Ok(emit.end_object()?)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Inside<'a, E>, EncodeError> {
        self.array()
    }
    fn serialize_tuple(self, _: usize) -> Result<Inside<'a, E>, EncodeError> {
        self.array()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Inside<'a, E>, EncodeError> {
        self.array()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'a, E>, EncodeError> {
        Ok(Inside { wrapped: true, ..self.variant(variant)?.array()? })
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Inside<'a, E>, EncodeError> {
        self.object()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inside<'a, E>, EncodeError> {
        self.object()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Inside<'a, E>, EncodeError> {
        Ok(Inside { wrapped: true, ..self.variant(variant)?.object()? })
    }
}

/// Implements the four kinds of list alike.
macro_rules! list {
    ($($kind:ident::$method:ident),*) => {$(
        impl<E: Emit> ser::$kind for Inside<'_, E> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
                self.value(value)
            }
            fn end(self) -> Result<(), EncodeError> {
                self.end_array()
            }
        }
    )*};
}
list!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// Implements the two kinds of struct alike.
macro_rules! fields {
    ($($kind:ident),*) => {$(
        impl<E: Emit> ser::$kind for Inside<'_, E> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), EncodeError> {
                self.emit.key(key)?;
                self.value(value)
            }
            fn end(self) -> Result<(), EncodeError> {
                self.end_object()
            }
        }
    )*};
}
fields!(SerializeStruct, SerializeStructVariant);

impl<E: Emit> ser::SerializeMap for Inside<'_, E> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        key.serialize(Value { emit: &mut Key(&mut *self.emit), depth: 0 })
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.value(value)
    }
    fn end(self) -> Result<(), EncodeError> {
        self.end_object()
    }
}

/// Turns the scalar that a map key is into the key event.
struct Key<'a, E>(&'a mut E);

impl<E: Emit> Emit for Key<'_, E> {
    fn begin_object(&mut self) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn end_object(&mut self) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn key(&mut self, _: &str) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn begin_array(&mut self) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn end_array(&mut self) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn null(&mut self) -> Emitted {
        Err(Reason::KeyNotText)
    }
    fn bool(&mut self, value: bool) -> Emitted {
        self.0.key(if value { "true" } else { "false" })
    }
    fn number(&mut self, lexeme: &str) -> Emitted {
        self.0.key(lexeme)
    }
    fn string(&mut self, text: &str) -> Emitted {
        self.0.key(text)
    }
}
