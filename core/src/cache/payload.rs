//! Stored form of a result: what it depends on in front, its rows behind, compressed when that is worth it.
//!
//! ```text
//! header   format, flags, numbers of dependencies, relations and rows, lengths                    48 bytes
//! deps     slot and version of each dependency                                                    12 bytes each
//! relations                                                                                        4 bytes each
//! padding  to a multiple of 8
//! body     the tuples, padding to a multiple of 8, the JSON text; as a whole perhaps LZ4
//! ```
//!
//! Dependencies and relations are never compressed, so that a result can be judged without its body. The byte order is
//! the machine's own: the memory does not outlive the server. No bytes can make [`decode`], or reading what it returns,
//! panic, or ask for more memory than LZ4 could have made of them.

use thiserror::Error;

/// First word of the header; another layout gets another one.
const FORMAT: u32 = 0x5354_5201;
/// Bytes of the header.
const HEADER: usize = 48;
/// Bytes of a dependency.
const DEP: usize = 12;
/// Bytes of a relation.
const RELATION: usize = 4;
/// The sections of the body, and the body itself, start at multiples of this.
const ALIGNMENT: usize = 8;
/// Flag: the body is compressed.
const COMPRESSED: u32 = 1;
/// Flag: there is a JSON text.
const JSON: u32 = 2;
/// A byte of LZ4 stands for at most this many.
const LARGEST_EXPANSION: usize = 255;

const _: () = assert!(HEADER & (ALIGNMENT - 1) == 0);

/// What is stored of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Slot and version of each dependency.
    pub deps: &'a [(u32, u64)],
    /// Number of rows.
    pub rows: u32,
    /// The rows, in a form that only the caller knows.
    pub tuples: &'a [u8],
    /// The rows as one JSON text.
    pub json: Option<&'a [u8]>,
    /// Relations that the result was computed from.
    pub relations: &'a [u32],
}

/// The bytes are not a stored result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Shorter than a header.
    #[error("stored result of {0} bytes is shorter than its header")]
    NoHeader(usize),
    /// Not this layout.
    #[error("stored result has format {0:#010x}")]
    Format(u32),
    /// The lengths in the header do not add up.
    #[error("stored result of {0} bytes does not have the length that its header tells")]
    Length(usize),
    /// The body cannot be decompressed.
    #[error("stored result cannot be decompressed to {0} bytes")]
    Compression(usize),
    /// There is no memory for the bytes.
    #[error("no memory for a result of {0} bytes")]
    Memory(usize),
}

/// What a stored result depends on: all that is in front of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front<'a> {
    /// Number of rows.
    pub rows: u32,
    deps: &'a [u8],
    relations: &'a [u8],
    compressed: bool,
}

/// A stored result, its body not yet decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// What stands in front of the body.
    pub front: Front<'a>,
    stored: &'a [u8],
    layout: Layout,
}

/// The rows of a stored result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// As in [`Parts::tuples`].
    pub tuples: &'a [u8],
    /// As in [`Parts::json`].
    pub json: Option<&'a [u8]>,
}

/// Where the sections of a decompressed body lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    tuples: usize,
    json: Option<usize>,
}

impl Layout {
    /// Bytes of the body; `None` when that is more than memory can hold.
    fn body_bytes(&self) -> Option<usize> {
        match self.json {
            Some(json) => self.tuples.checked_next_multiple_of(ALIGNMENT)?.checked_add(json),
            None => Some(self.tuples),
        }
    }

    fn split<'a>(&self, body: &'a [u8]) -> Option<Body<'a>> {
        let tuples = body.get(..self.tuples)?;
        let json_start = self.tuples.checked_next_multiple_of(ALIGNMENT)?;
        let json = match self.json {
            Some(bytes) => Some(body.get(json_start..json_start.checked_add(bytes)?)?),
            None => None,
        };
        Some(Body { tuples, json })
    }
}

/// Writes the stored form to `out` (cleared first). A body longer than `compress_above` is compressed if that makes it
/// shorter, and if there is memory to do so.
pub fn encode(parts: &Parts, compress_above: usize, out: &mut Vec<u8>) -> Result<(), PayloadError> {
    out.clear();
    reserve(out, plain_bytes(parts))?;
    out.resize(HEADER, 0);
    for (slot, version) in parts.deps {
        out.extend_from_slice(&slot.to_ne_bytes());
        out.extend_from_slice(&version.to_ne_bytes());
    }
    parts.relations.iter().for_each(|relation| out.extend_from_slice(&relation.to_ne_bytes()));
    pad(out);
    let body_start = out.len();
    out.extend_from_slice(parts.tuples);
    if let Some(json) = parts.json {
        // The body starts at a multiple too, so what is one from the start is one within it.
        pad(out);
        out.extend_from_slice(json);
    }
    let compressed = out.len() - body_start > compress_above && compress(out, body_start);
    let header = header(parts, compressed, out.len() - body_start);
    out[..HEADER].copy_from_slice(&header);
    Ok(())
}

/// At most as many bytes as the stored form has when its body is not compressed.
fn plain_bytes(parts: &Parts) -> usize {
    let json_bytes = parts.json.map_or(0, <[u8]>::len);
    let lists = parts.deps.len() * DEP + parts.relations.len() * RELATION;
    HEADER + lists + parts.tuples.len() + json_bytes + 2 * ALIGNMENT
}

/// An allocation that fails otherwise ends the process.
fn reserve(bytes: &mut Vec<u8>, more: usize) -> Result<(), PayloadError> {
    bytes.try_reserve_exact(more).map_err(|_| PayloadError::Memory(more))
}

/// Checks the header and gives access to the parts.
pub fn decode(bytes: &[u8]) -> Result<View<'_>, PayloadError> {
    let front = decode_front(bytes)?;
    let wrong_length = PayloadError::Length(bytes.len());
    let head = Head::read(bytes)?;
    let [stored, tuples, json] = [24, 32, 40].map(|at| usize::try_from(long(bytes, at)).ok());
    let tuples = tuples.ok_or(wrong_length)?;
    let json = if head.flags & JSON != 0 { Some(json.ok_or(wrong_length)?) } else { None };
    let layout = Layout { tuples, json };
    // The header is a multiple of the alignment, so it does not count.
    let body_start = front_bytes(bytes)?.checked_next_multiple_of(ALIGNMENT).ok_or(wrong_length)?;
    let body = bytes.get(body_start..).ok_or(wrong_length)?;
    let body_bytes = layout.body_bytes().ok_or(wrong_length)?;
    let largest = if front.compressed { body.len().saturating_mul(LARGEST_EXPANSION) } else { body.len() };
    let smallest = if front.compressed { 0 } else { body.len() };
    if stored != Some(body.len()) || body_bytes > largest || body_bytes < smallest {
        return Err(wrong_length);
    }
    Ok(View { front, stored: body, layout })
}

/// Bytes in front of the body, as the header tells. `bytes` may end before the body does.
pub fn front_bytes(bytes: &[u8]) -> Result<usize, PayloadError> {
    let head = Head::read(bytes)?;
    let [_, end] = head.ends().ok_or(PayloadError::Length(bytes.len()))?;
    end.checked_add(HEADER).ok_or(PayloadError::Length(bytes.len()))
}

/// As [`decode`], without the body: `bytes` may end at [`front_bytes`].
pub fn decode_front(bytes: &[u8]) -> Result<Front<'_>, PayloadError> {
    let head = Head::read(bytes)?;
    let wrong_length = PayloadError::Length(bytes.len());
    let [deps_end, relations_end] = head.ends().ok_or(wrong_length)?;
    let rest = &bytes[HEADER..];
    let deps = rest.get(..deps_end).ok_or(wrong_length)?;
    let relations = rest.get(deps_end..relations_end).ok_or(wrong_length)?;
    Ok(Front { rows: head.rows, deps, relations, compressed: head.flags & COMPRESSED != 0 })
}

/// The counts in a header.
struct Head {
    flags: u32,
    deps: usize,
    relations: usize,
    rows: u32,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, PayloadError> {
        let header = bytes.first_chunk::<HEADER>().ok_or(PayloadError::NoHeader(bytes.len()))?;
        let [format, flags, deps, relations, rows] = std::array::from_fn(|index| word(header, 4 * index));
        if format != FORMAT || flags & !(COMPRESSED | JSON) != 0 {
            return Err(PayloadError::Format(format));
        }
        Ok(Self { flags, deps: deps as usize, relations: relations as usize, rows })
    }

    /// Where dependencies and relations end, after the header.
    fn ends(&self) -> Option<[usize; 2]> {
        let deps_end = self.deps.checked_mul(DEP)?;
        Some([deps_end, self.relations.checked_mul(RELATION)?.checked_add(deps_end)?])
    }
}

impl<'a> Front<'a> {
    /// Slot and version of each dependency.
    pub fn deps(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + Clone + use<'a> {
        self.deps.chunks_exact(DEP).map(|dep| (word(dep, 0), long(dep, 4)))
    }

    /// Relations that the result was computed from.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.relations.chunks_exact(RELATION).map(|relation| word(relation, 0))
    }

    /// Whether the body is compressed.
    pub const fn is_compressed(&self) -> bool {
        self.compressed
    }
}

impl<'a> View<'a> {
    /// As of its front.
    pub fn deps(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + Clone + use<'a> {
        self.front.deps()
    }

    /// As of its front.
    pub fn relations(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.front.relations()
    }

    /// Bytes of the body, not compressed.
    pub fn body_bytes(&self) -> usize {
        self.layout.body_bytes().unwrap_or(0)
    }

    /// The rows; decompressed to `scratch` (overwritten) when they are compressed.
    pub fn body<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<Body<'b>, PayloadError>
    where
        'a: 'b,
    {
        let body_bytes = self.body_bytes();
        let failed = PayloadError::Compression(body_bytes);
        let body: &'b [u8] = if self.front.compressed {
            scratch.clear();
            reserve(scratch, body_bytes)?;
            scratch.resize(body_bytes, 0);
            let written = lz4_flex::block::decompress_into(self.stored, scratch).map_err(|_| failed)?;
            scratch.get(..written).unwrap_or_default()
        } else {
            self.stored
        };
        self.layout.split(body).ok_or(failed)
    }
}

fn header(parts: &Parts, compressed: bool, stored: usize) -> [u8; HEADER] {
    let flags = if compressed { COMPRESSED } else { 0 } | if parts.json.is_some() { JSON } else { 0 };
    let counts = [FORMAT, flags, parts.deps.len() as u32, parts.relations.len() as u32, parts.rows, 0];
    let lengths = [stored, parts.tuples.len(), parts.json.map_or(0, <[u8]>::len)];
    let mut header = [0; HEADER];
    for (place, count) in header.chunks_exact_mut(4).zip(counts) {
        place.copy_from_slice(&count.to_ne_bytes());
    }
    for (place, length) in header[24..].chunks_exact_mut(8).zip(lengths) {
        place.copy_from_slice(&(length as u64).to_ne_bytes());
    }
    header
}

/// Replaces the bytes from `start` on by fewer, or returns false.
fn compress(out: &mut Vec<u8>, start: usize) -> bool {
    let body = &out[start..];
    let room = lz4_flex::block::get_maximum_output_size(body.len());
    let mut shorter = Vec::new();
    if reserve(&mut shorter, room).is_err() {
        return false;
    }
    shorter.resize(room, 0);
    let Ok(written) = lz4_flex::block::compress_into(body, &mut shorter) else { return false };
    if written >= body.len() {
        return false;
    }
    out.truncate(start);
    out.extend_from_slice(&shorter[..written]);
    true
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u32::from_ne_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |long| u64::from_ne_bytes(*long))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let mut bytes = vec![1, 2];
        assert_eq!(reserve(&mut bytes, usize::MAX), Err(PayloadError::Memory(usize::MAX)));
        assert_eq!(bytes, [1, 2]);
    }

    #[test]
    fn the_plain_form_fits_what_is_reserved_for_it() {
        for (deps, relations, tuples, json) in
            [(0, 0, 0, None), (1, 1, 1, Some(1)), (3, 2, 13, Some(0)), (7, 5, 8, None)]
        {
            let (deps, relations) = (vec![(1, 2); deps], vec![3; relations]);
            let (tuples, json) = (vec![4; tuples], json.map(|bytes| vec![5; bytes]));
            let parts = Parts { deps: &deps, rows: 1, tuples: &tuples, json: json.as_deref(), relations: &relations };
            let mut out = Vec::new();
            encode(&parts, usize::MAX, &mut out).expect("memory");
            assert!(out.len() <= plain_bytes(&parts), "{} {}", out.len(), plain_bytes(&parts));
        }
    }
}
