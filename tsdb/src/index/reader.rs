//! Reads an index in place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use parking_lot::RwLock;

use super::symbols::Symbols;
use super::{MAGIC, SERIES_ALIGN, Toc};
use crate::chunks::{ChunkMeta, ChunkRef};
use crate::encoding::{Cursor, DecodeError, checksum_fits, crc32c, put_be32, unzigzag};
use crate::error::{Error, Result};
use crate::fs;
use crate::labels::Labels;
use crate::postings::{Postings, PostingsSource};

/// Every how many values of a label name an offset is kept in memory, as Prometheus does.
const SAMPLE: u32 = 32;
/// Postings lists above this are verified once and not each time, bytes.
const LARGE_LIST: usize = 16 << 10;

/// An index, mapped. Memory holds the offsets of some symbols and of some postings lists.
#[derive(Debug)]
pub struct Reader {
    /// Another one for each reader.
    id: u64,
    path: PathBuf,
    bytes: Mmap,
    toc: Toc,
    /// The symbol table, after its length and before its checksum.
    symbol_bytes: Range<usize>,
    symbols: Symbols,
    /// The postings offset table, likewise.
    table_bytes: Range<usize>,
    /// What version 1 does in another way.
    v1: Option<V1>,
    names: Names,
    /// Offset of the list of all series.
    all: Option<u64>,
    /// Offsets of large postings lists whose checksum was verified: once is enough, and takes longer than what
    /// is done with them.
    verified: RwLock<BTreeSet<u64>>,
}

/// Version 1 refers to symbols and series by their byte offsets, and does not sort the postings offset table.
#[derive(Debug)]
struct V1 {
    /// Byte offset in the file of each symbol, ascending.
    symbol_offsets: Vec<u32>,
    /// The postings offset table, sorted.
    table: Vec<u8>,
}

type Names = BTreeMap<Box<str>, Values>;

/// The values of one label name: a run of entries of the postings offset table.
#[derive(Debug, Default)]
struct Values {
    count: u32,
    /// Offsets in the table of values 0, [`SAMPLE`], 2·[`SAMPLE`], …
    offsets: Vec<u32>,
}

/// A series as the index has it. Reused from one call to the next, so that nothing is allocated, and that labels which
/// are those of the series before are not looked up again.
#[derive(Debug, Default, Clone)]
pub struct SeriesEntry {
    label_bytes: Vec<u8>,
    /// Each label of `label_bytes`, if it is known where that is from.
    parts: Vec<LabelPart>,
    /// Which reader `parts` are from, and where in its file they begin.
    source: (u64, usize),
    /// Chunks in ascending time.
    pub chunks: Vec<ChunkMeta>,
}

/// A label that was decoded.
#[derive(Debug, Clone, Copy)]
struct LabelPart {
    /// Symbol of its name.
    name: u32,
    /// Where its symbols end, bytes from the first label's.
    symbols_end: usize,
    /// Where it ends in the label bytes.
    end: usize,
}

impl SeriesEntry {
    /// The labels.
    pub fn labels(&self) -> Labels {
        Labels::from_canonical(&self.label_bytes)
    }

    /// Canonical bytes of the labels, see [`Labels::as_bytes`].
    pub fn label_bytes(&self) -> &[u8] {
        &self.label_bytes
    }

    /// Keeps of the labels before those whose symbols are the same in `next`, which begins at `source` and has `count`
    /// labels, and says where in it they end. All there is to be known about a label follows from the bytes of it.
    #[inline]
    fn keep_shared(&mut self, file: &[u8], source: (u64, usize), next: &[u8], count: u64) -> usize {
        let (reader, start) = std::mem::replace(&mut self.source, source);
        let before = if reader == source.0 { file.get(start..).unwrap_or_default() } else { &[] };
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(self.parts.len());
        let shared = shared_len(before, next, self.parts.last().map_or(0, |part| part.symbols_end));
        let kept = self.parts[..most].iter().take_while(|part| part.symbols_end <= shared).count();
        self.parts.truncate(kept);
        let (symbols_end, end) = self.parts.last().map_or((0, 0), |part| (part.symbols_end, part.end));
        self.label_bytes.truncate(end);
        symbols_end
    }
}

/// An entry of the postings offset table.
struct TableEntry<'a> {
    name: &'a [u8],
    value: &'a [u8],
    offset: u64,
}

impl<'a> TableEntry<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        if cursor.uvarint()? != 2 {
            return Err(cursor.error("an entry of the postings table has not two keys"));
        }
        Ok(Self { name: cursor.prefixed()?, value: cursor.prefixed()?, offset: cursor.uvarint()? })
    }
}

impl Reader {
    /// Maps a file, checks its magic, version and table of contents, and reads its tables.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is damaged, [`Error::Unsupported`] for a version other than 1, 2 and 3.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::map(path)?;
        let mut cursor = Cursor::new(&bytes);
        let magic = cursor.be32().map_err(|e| e.in_file(path, 0))?;
        let version = cursor.u8().map_err(|e| e.in_file(path, 0))?;
        if magic != MAGIC {
            return Err(Error::corrupt(path, 0, format!("magic is {magic:08x}, an index has {MAGIC:08x}")));
        }
        if !(1..=3).contains(&version) {
            return Err(Error::Unsupported(format!("index version {version} of {}", path.display())));
        }
        let toc = Toc::decode(&bytes).map_err(|e| e.in_file(path, 0))?;

        let symbol_bytes = checked_section(&bytes, toc.symbols).map_err(|e| e.in_file(path, 0))?;
        let symbols = Symbols::open(&bytes[symbol_bytes.clone()])
            .map_err(|e| e.in_file(path, symbol_bytes.start as u64))?;
        let table_bytes = checked_section(&bytes, toc.postings_table).map_err(|e| e.in_file(path, 0))?;
        let in_table = |e: DecodeError| e.in_file(path, table_bytes.start as u64);
        let v1 = match version {
            1 => Some(V1 {
                symbol_offsets: symbols.starts(&bytes[symbol_bytes.clone()], symbol_bytes.start),
                table: sorted_table(&bytes[table_bytes.clone()]).map_err(in_table)?,
            }),
            _ => None,
        };
        let table = v1.as_ref().map_or(&bytes[table_bytes.clone()], |v1| &v1.table);
        let (names, all) = read_names(table).map_err(in_table)?;
        let verified = RwLock::default();
        // From 1 on: entries begin with 0, which is no reader.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            path: path.to_owned(),
            bytes,
            toc,
            symbol_bytes,
            symbols,
            table_bytes,
            v1,
            names,
            all,
            verified,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Number of symbols.
    pub fn symbol_count(&self) -> u32 {
        self.symbols.len()
    }

    /// All symbols, ascending.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter(&self.bytes[self.symbol_bytes.clone()])
    }

    /// All label names, ascending.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|n| &**n)
    }

    /// Number of values of a label name.
    pub fn value_count(&self, name: &str) -> usize {
        self.names.get(name).map_or(0, |v| v.count as usize)
    }

    /// Calls `visit` with each value of `name` from `from` on, ascending, and its postings' offset for
    /// [`Reader::postings_at`], until it breaks.
    ///
    /// # Errors
    /// When the table is damaged.
    pub fn for_each_value<'s>(
        &'s self,
        name: &str,
        from: &str,
        mut visit: impl FnMut(&'s str, u64) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let Some(values) = self.names.get(name) else { return Ok(()) };
        let table = self.table();
        let damaged = |e: DecodeError| e.in_file(&self.path, self.table_bytes.start as u64);
        // The last sampled value that is not after `from`: what is sought comes no sooner.
        let mut sample = values.offsets.partition_point(|offset| {
            TableEntry::read(&mut Cursor::at(table, *offset as usize))
                .is_ok_and(|e| e.value <= from.as_bytes())
        });
        sample = sample.saturating_sub(1);
        let Some(offset) = values.offsets.get(sample) else { return Ok(()) };
        let mut cursor = Cursor::at(table, *offset as usize);
        let mut is_there = from.is_empty();
        for _ in sample as u32 * SAMPLE..values.count {
            let entry = TableEntry::read(&mut cursor).map_err(damaged)?;
            is_there = is_there || entry.value >= from.as_bytes();
            if !is_there {
                continue;
            }
            // SAFETY: `read_names` read the same entries of the same immutable bytes at open and
            // checked that each value is UTF-8.
            let value = unsafe { std::str::from_utf8_unchecked(entry.value) };
            if visit(value, entry.offset)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn table(&self) -> &[u8] {
        self.v1.as_ref().map_or(&self.bytes[self.table_bytes.clone()], |v1| &v1.table)
    }

    /// Numbers of the next two symbols, which version 1 refers to by their offsets.
    #[inline]
    fn symbol_pair(&self, body: &mut Cursor<'_>) -> Result<(u32, u32), DecodeError> {
        let (name, value) = (body.uvarint32()?, body.uvarint32()?);
        let Some(v1) = &self.v1 else { return Ok((name, value)) };
        let number = |offset: u32| {
            let found = v1.symbol_offsets.binary_search(&offset);
            found.map(|i| i as u32).map_err(|_| body.error("series refers to a symbol that cannot be"))
        };
        Ok((number(name)?, number(value)?))
    }

    /// The postings list at `offset`, in place, after its checksum was verified, now or, if it is large, before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no sound list.
    pub fn postings_at(&self, offset: u64) -> Result<Postings<'_>> {
        let damaged = |e: DecodeError| e.in_file(&self.path, 0);
        let section = section(&self.bytes, offset).map_err(damaged)?;
        let large = section.len() > LARGE_LIST;
        if !large || !self.verified.read().contains(&offset) {
            check(&self.bytes, &section).map_err(damaged)?;
            if large {
                self.verified.write().insert(offset);
            }
        }
        let list = &self.bytes[section];
        match list.split_first_chunk::<4>() {
            Some((count, refs)) if u32::from_be_bytes(*count) as usize * 4 == refs.len() => {
                Ok(Postings::Be32(refs))
            }
            _ => Err(Error::corrupt(&self.path, offset, "postings list has another length than it says")),
        }
    }

    /// Reads the series with `reference` into `entry`, without chunks that lie outside `[mint, maxt]`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no sound series.
    pub fn series(&self, reference: u64, mint: i64, maxt: i64, entry: &mut SeriesEntry) -> Result<()> {
        let (offset, mut body) = self.series_body(reference)?;
        let damaged = |e: DecodeError| e.in_file(&self.path, offset);
        self.decode_labels(offset, &mut body, entry).map_err(damaged)?;
        entry.chunks.clear();
        decode_chunks(&mut body, mint, maxt, &mut entry.chunks).map_err(damaged)
    }

    /// Reads the labels at the start of `body`, which lies at `offset` of the file.
    #[inline]
    fn decode_labels(
        &self,
        offset: u64,
        body: &mut Cursor<'_>,
        entry: &mut SeriesEntry,
    ) -> Result<(), DecodeError> {
        let count = body.uvarint()?;
        let start = body.offset();
        let source = (self.id, offset as usize + start);
        body.bytes(entry.keep_shared(&self.bytes, source, body.rest(), count))?;
        let symbol_bytes = &self.bytes[self.symbol_bytes.clone()];
        for _ in entry.parts.len() as u64..count {
            let (name, value) = self.symbol_pair(body)?;
            if entry.parts.last().is_some_and(|last| last.name >= name) {
                return Err(body.error("labels of a series are out of order"));
            }
            // A symbol is stored as a label part is: copied with its length, and canonical because
            // `Symbols::open` checked order, UTF-8 and shortest lengths.
            for (symbol, is_value) in [(name, false), (value, true)] {
                match self.symbols.raw(symbol_bytes, symbol) {
                    Some(raw) if raw.len() > 1 || !is_value => entry.label_bytes.extend_from_slice(raw),
                    _ => return Err(body.error("series refers to a symbol that cannot be")),
                }
            }
            let (symbols_end, end) = (body.offset() - start, entry.label_bytes.len());
            entry.parts.push(LabelPart { name, symbols_end, end });
        }
        Ok(())
    }

    /// Calls `visit` with the symbols of each label of a series: name, value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no sound series.
    pub fn for_each_label(&self, reference: u64, mut visit: impl FnMut(u32, u32)) -> Result<()> {
        let (offset, mut body) = self.series_body(reference)?;
        let damaged = |e: DecodeError| e.in_file(&self.path, offset);
        for _ in 0..body.uvarint().map_err(damaged)? {
            let (name, value) = self.symbol_pair(&mut body).map_err(damaged)?;
            visit(name, value);
        }
        Ok(())
    }

    /// Text of a symbol.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is no such symbol.
    pub fn symbol(&self, number: u32) -> Result<&str> {
        self.symbols.get(&self.bytes[self.symbol_bytes.clone()], number).ok_or_else(|| {
            Error::corrupt(&self.path, self.toc.symbols, format!("there is no symbol {number}"))
        })
    }

    /// Where the entry of a series begins, bytes from the start of the file.
    pub fn series_offset(&self, reference: u64) -> u64 {
        reference.saturating_mul(if self.v1.is_some() { 1 } else { SERIES_ALIGN })
    }

    /// File offset and body of a series entry, after its checksum was verified.
    fn series_body(&self, reference: u64) -> Result<(u64, Cursor<'_>)> {
        let start = self.series_offset(reference);
        let corrupt = |reason| Error::corrupt(&self.path, start, reason);
        if start < self.toc.series || start >= self.toc.label_indices.max(self.toc.postings) {
            return Err(corrupt("reference points outside the series"));
        }
        let mut cursor = Cursor::at(&self.bytes, usize::try_from(start).unwrap_or(usize::MAX));
        let read = cursor.prefixed().and_then(|body| Ok((body, cursor.be32()?)));
        let (body, expected) = read.map_err(|e| corrupt(e.reason))?;
        if !checksum_fits(crc32c(body), expected) {
            return Err(corrupt("checksum of a series is wrong"));
        }
        let body_start = cursor.offset() - 4 - body.len();
        Ok((body_start as u64, Cursor::new(body)))
    }
}

impl PostingsSource for Reader {
    fn all(&self) -> Result<Postings<'_>> {
        self.all.map_or_else(|| Ok(Postings::default()), |offset| self.postings_at(offset))
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Postings<'_>> {
        let mut found = None;
        self.for_each_value(name, value, |v, offset| {
            found = (v == value).then_some(offset);
            Ok(ControlFlow::Break(()))
        })?;
        found.map_or_else(|| Ok(Postings::default()), |offset| self.postings_at(offset))
    }

    fn with_values(
        &self,
        name: &str,
        prefixes: &[String],
        accept: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<Postings<'_>>> {
        let mut out = Vec::new();
        let mut take = |value: &str, offset: u64| {
            if accept(value) {
                out.push(self.postings_at(offset)?);
            }
            Ok(ControlFlow::Continue(()))
        };
        if prefixes.is_empty() {
            self.for_each_value(name, "", &mut take)?;
        }
        for prefix in prefixes {
            self.for_each_value(name, prefix, |value, offset| match value.starts_with(prefix.as_str()) {
                true => take(value, offset),
                false => Ok(ControlFlow::Break(())),
            })?;
        }
        Ok(out)
    }

    fn value_count(&self, name: &str) -> usize {
        Reader::value_count(self, name)
    }

    fn has_value(&self, series: u64, name: &str, accept: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        let mut symbol = None;
        self.for_each_label(series, |label, value| {
            if symbol.is_none() && self.symbol(label).is_ok_and(|label| label == name) {
                symbol = Some(value);
            }
        })?;
        Ok(accept(symbol.map_or(Ok(""), |value| self.symbol(value))?))
    }
}

/// Body of the section at `offset`: after its BE32 length, before its CRC-32C.
fn section(bytes: &[u8], offset: u64) -> Result<Range<usize>, DecodeError> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let mut cursor = Cursor::at(bytes, offset);
    let length = cursor.be32()? as usize;
    let start = cursor.offset();
    cursor.bytes(length)?;
    cursor.be32()?;
    Ok(start..start + length)
}

/// Verifies the checksum behind the body of a section.
fn check(bytes: &[u8], body: &Range<usize>) -> Result<(), DecodeError> {
    let expected = Cursor::at(bytes, body.end).be32()?;
    if checksum_fits(crc32c(&bytes[body.clone()]), expected) {
        return Ok(());
    }
    Err(DecodeError { offset: body.start - 4, reason: "checksum of a section is wrong" })
}

/// As [`section`], verified.
fn checked_section(bytes: &[u8], offset: u64) -> Result<Range<usize>, DecodeError> {
    let body = section(bytes, offset)?;
    check(bytes, &body)?;
    Ok(body)
}

/// Label names with their values, and the offset of the list of all series.
fn read_names(table: &[u8]) -> Result<(Names, Option<u64>), DecodeError> {
    let mut cursor = Cursor::new(table);
    let count = cursor.be32()?;
    let mut names = BTreeMap::new();
    let mut all = None;
    // The run that is being read; its name is in `last`.
    let mut run = Values::default();
    let mut last: Option<(&str, &str)> = None;
    for _ in 0..count {
        let start = cursor.offset();
        let entry = TableEntry::read(&mut cursor)?;
        let text = |bytes| {
            std::str::from_utf8(bytes)
                .map_err(|_| DecodeError { offset: start, reason: "postings key is not UTF-8" })
        };
        let (name, value) = (text(entry.name)?, text(entry.value)?);
        if last.is_some_and(|l| l >= (name, value)) {
            return Err(DecodeError { offset: start, reason: "postings table is out of order" });
        }
        if name.is_empty() {
            if value.is_empty() {
                all = Some(entry.offset);
            }
            continue;
        }
        if let Some((l, _)) = last
            && l != name
        {
            names.insert(l.into(), std::mem::take(&mut run));
        }
        if run.count % SAMPLE == 0 {
            run.offsets.push(start as u32);
        }
        run.count += 1;
        last = Some((name, value));
    }
    if let Some((name, _)) = last {
        names.insert(name.into(), run);
    }
    Ok((names, all))
}

/// The entries of a postings offset table of version 1 in the order of later versions, each name and value
/// once.
fn sorted_table(table: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut cursor = Cursor::new(table);
    let mut entries = BTreeMap::new();
    for _ in 0..cursor.be32()? {
        let start = cursor.offset();
        let entry = TableEntry::read(&mut cursor)?;
        entries.insert((entry.name, entry.value), &table[start..cursor.offset()]);
    }
    let mut out = Vec::with_capacity(table.len());
    put_be32(&mut out, entries.len() as u32);
    entries.values().for_each(|entry| out.extend_from_slice(entry));
    Ok(out)
}

fn decode_chunks(
    body: &mut Cursor<'_>,
    mint: i64,
    maxt: i64,
    out: &mut Vec<ChunkMeta>,
) -> Result<(), DecodeError> {
    let count = body.uvarint()?;
    let mut last = ChunkMeta { mint: 0, maxt: 0, reference: ChunkRef(0) };
    for i in 0..count {
        // The first is told in full, with one number that has a sign in the other place.
        let (start, length, reference) = if i == 0 {
            (body.varint()?, body.uvarint()?, body.uvarint()?)
        } else {
            let [gap, length, moved] = body.uvarint3()?;
            let moved = unzigzag(moved) as u64;
            (last.maxt.wrapping_add(gap as i64), length, last.reference.0.wrapping_add(moved))
        };
        let end = start.wrapping_add(length as i64);
        last = ChunkMeta { mint: start, maxt: end, reference: ChunkRef(reference) };
        if start > maxt {
            // Chunks are in ascending time: none of the rest can overlap.
            break;
        }
        if last.overlaps(mint, maxt) {
            out.push(last);
        }
    }
    Ok(())
}

/// How many of the first `most` bytes are the same in both.
#[inline]
fn shared_len(a: &[u8], b: &[u8], most: usize) -> usize {
    let most = most.min(a.len()).min(b.len());
    let (a, b) = (&a[..most], &b[..most]);
    let ((words, _), (others, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut same = 0;
    for (x, y) in words.iter().zip(others) {
        let differs = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differs != 0 {
            return same + differs.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}
