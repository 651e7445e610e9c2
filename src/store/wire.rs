//! Reads of an OTLP request what the store sorts spans by, and leaves everything else in the bytes that it came in.
//!
//! Decoding a span into values costs some twenty allocations, and the store would only encode them again. So this walks the protobuf wire
//! format (<https://protobuf.dev/programming-guides/encoding/>) over borrowed bytes: fields that it has no use for are stepped over by their
//! length. Whoever reads a trace decodes it then. Field numbers are those of `opentelemetry/proto/trace/v1/trace.proto` (1.x, stable).
//!
//! Whatever the bytes are, this gives a value or a [`Malformed`]; where prost decodes the same bytes, both give the same.

use super::TraceId;

/// Why bytes are not a request of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The message ends within a field.
    #[error("the message ends within a field")]
    Truncated,
    /// A number of more than 64 bits.
    #[error("a number is longer than 64 bits")]
    Varint,
    /// A field's key that protobuf does not have: field number 0, or a number of more than 29 bits.
    #[error("a field has no valid number")]
    Key,
    /// A wire type that proto3 does not have: groups ended with proto2, and 6 and 7 never were.
    #[error("wire type {0} is not proto3's")]
    WireType(u8),
    /// A field of OTLP with another type than OTLP gives it.
    #[error("field {0} is not of its type")]
    FieldType(u32),
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// The value of a field as the wire carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Key and value, as they stand in the message.
    raw: &'a [u8],
}

impl<'a> Field<'a> {
    fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Value::Bytes(bytes) = self.value { Ok(bytes) } else { Err(Malformed::FieldType(self.number)) }
    }

    fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Text)
    }

    fn varint(self) -> Result<u64, Malformed> {
        if let Value::Varint(number) = self.value { Ok(number) } else { Err(Malformed::FieldType(self.number)) }
    }

    fn fixed64(self) -> Result<u64, Malformed> {
        if let Value::Fixed64(number) = self.value { Ok(number) } else { Err(Malformed::FieldType(self.number)) }
    }
}

/// The fields of a message, one after the other; ends after the first malformed one.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        // Keys of fields up to 15 and lengths up to 127 are of one byte: most that there are.
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (n, &byte) in self.rest.iter().enumerate().take(10) {
            // Nine bytes carry 63 bits.
            if n == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            number |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                self.rest = &self.rest[n + 1..];
                return Ok(number);
            }
        }
        Err(Malformed::Truncated)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    #[expect(
        clippy::inline_always,
        reason = "a fifth of the store's time goes by here: each loop over fields leaves out what it does not ask for"
    )]
    #[inline(always)]
    fn field(&mut self) -> Result<Field<'a>, Malformed> {
        let start = self.rest;
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Key)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => self.array::<4>().map(|_| Value::Fixed32)?,
            other => return Err(Malformed::WireType(u8::try_from(other).unwrap_or(u8::MAX))),
        };
        if key >> 3 == 0 {
            return Err(Malformed::Key);
        }
        Ok(Field { number: key >> 3, value, raw: &start[..start.len() - self.rest.len()] })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    #[expect(clippy::inline_always, reason = "as above")]
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// What the store reads of a span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span<'a> {
    /// None where it is not of 16 bytes, or all zero: such a span belongs to no trace.
    pub trace_id: Option<TraceId>,
    /// 8 bytes, if the sender keeps to OTLP.
    pub span_id: &'a [u8],
    /// The parent's span id; empty of a root.
    pub parent: &'a [u8],
    /// What the operation is called.
    pub name: &'a str,
    /// When it began: nanoseconds since 1970.
    pub start: u64,
    /// When it ended: nanoseconds since 1970.
    pub end: u64,
    /// Whether its status is `STATUS_CODE_ERROR`.
    pub failed: bool,
}

/// `STATUS_CODE_ERROR` of trace.proto.
const STATUS_ERROR: u64 = 2;

impl<'a> Span<'a> {
    /// Reads a `Span` message.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut span = Self::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => span.trace_id = field.bytes()?.try_into().ok().and_then(TraceId::new),
                2 => span.span_id = field.bytes()?,
                4 => span.parent = field.bytes()?,
                5 => span.name = field.text()?,
                7 => span.start = field.fixed64()?,
                8 => span.end = field.fixed64()?,
                15 => {
                    for field in Fields::of(field.bytes()?) {
                        let field = field?;
                        if field.number == 3 {
                            // An enum is an int32 on the wire: what is above its 32 bits does not count.
                            span.failed = field.varint()? & u64::from(u32::MAX) == STATUS_ERROR;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(span)
    }

    /// Nanoseconds that it took: none if the clock was set back in between.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The spans of one scope of one resource in a request.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    resource_spans: &'a [u8],
    scope_spans: &'a [u8],
}

/// A request (`ExportTraceServiceRequest`), read whole before any of it is stored: one that is malformed at its end leaves no trace.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// The groups, in the request's order.
    pub groups: Vec<Group<'a>>,
    /// Number of its group, what was read of it, and its bytes.
    pub spans: Vec<(usize, Span<'a>, &'a [u8])>,
    /// Who sent them: one for each resource that has spans.
    pub senders: Vec<Sender<'a>>,
}

/// `service.name` and `service.instance.id` of a resource. Empty where it has none, or one that is no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender<'a> {
    /// `service.name`.
    pub service: &'a str,
    /// `service.instance.id`.
    pub id: &'a str,
}

impl<'a> Batch<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut batch = Self::default();
        for field in Fields::of(message) {
            let field = field?;
            if field.number == 1 {
                batch.read_resource_spans(field.bytes()?)?;
            }
        }
        Ok(batch)
    }

    fn read_resource_spans(&mut self, resource_spans: &'a [u8]) -> Result<(), Malformed> {
        let first = self.groups.len();
        let sender = Sender::read(resource_spans)?;
        for field in Fields::of(resource_spans) {
            let field = field?;
            if field.number == 2 {
                self.read_scope_spans(Group { resource_spans, scope_spans: field.bytes()? })?;
            }
        }
        if self.groups.len() > first {
            self.senders.push(sender);
        }
        Ok(())
    }

    fn read_scope_spans(&mut self, group: Group<'a>) -> Result<(), Malformed> {
        let number = self.groups.len();
        let before = self.spans.len();
        for field in Fields::of(group.scope_spans) {
            let field = field?;
            if field.number == 2 {
                let bytes = field.bytes()?;
                self.spans.push((number, Span::read(bytes)?, bytes));
            }
        }
        if self.spans.len() > before {
            self.groups.push(group);
        }
        Ok(())
    }
}

impl Group<'_> {
    /// Writes the `ResourceSpans` message without its scopes: the resource, and the URL of its schema.
    pub fn write_resource(&self, out: &mut Vec<u8>) {
        copy_without_field_2(self.resource_spans, out);
    }

    /// Writes the `ScopeSpans` message without its spans: the scope, and the URL of its schema.
    pub fn write_scope(&self, out: &mut Vec<u8>) {
        copy_without_field_2(self.scope_spans, out);
    }
}

/// Both messages carry what they are a list of in field 2.
fn copy_without_field_2(message: &[u8], out: &mut Vec<u8>) {
    for field in Fields::of(message).flatten().filter(|field| field.number != 2) {
        out.extend_from_slice(field.raw);
    }
}

impl<'a> Sender<'a> {
    /// Reads who sent a `ResourceSpans` message, with or without its spans.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn read(resource_spans: &'a [u8]) -> Result<Self, Malformed> {
        let (mut service, mut id) = (None, None);
        for resource in Fields::of(resource_spans) {
            let resource = resource?;
            if resource.number != 1 {
                continue;
            }
            for attribute in Fields::of(resource.bytes()?) {
                let attribute = attribute?;
                if attribute.number != 1 {
                    continue;
                }
                let (key, value) = key_value(attribute.bytes()?)?;
                // Keys are unique (OTLP); of those that are not, the first counts.
                match key {
                    "service.name" => service = service.or(Some(value)),
                    "service.instance.id" => id = id.or(Some(value)),
                    _ => {}
                }
            }
        }
        Ok(Self { service: service.unwrap_or_default(), id: id.unwrap_or_default() })
    }
}

/// A `KeyValue` message: its key, and its value if that is a text.
fn key_value(message: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut key, mut text) = ("", "");
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => {
                for value in Fields::of(field.bytes()?) {
                    let value = value?;
                    match value.number {
                        1 => text = value.text()?,
                        // One of the others: of several, the last counts.
                        2..=8 => text = "",
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok((key, text))
}
