//! Writes an index from series in label order.
//!
//! Memory does not grow with the samples, and little with the series: 4 bytes for each symbol, and
//! [`POSTINGS_IN_MEMORY`] postings at a time, or all of the one label name that has the most.
//!
//! # Source
//! The layout is that of <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/index/index.go>.
//! Difference: if symbols are not known in advance, series wait in a temporary file.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::symbols::Symbols;
use super::{FILE_NAME, HEADER_LEN, MAGIC, SERIES_ALIGN, Toc, VERSION};
use crate::chunks::ChunkMeta;
use crate::encoding::{
    Cursor, DecodeError, crc32c, crc32c_append, crc32c_combine, put_be32, put_prefixed, put_uvarint,
    put_varint,
};
use crate::error::{Error, Result};
use crate::fs::{self, FileWriter};
use crate::labels::Labels;

/// Postings that are sorted in memory at once, 8 bytes each; a multiple of it means so many more passes over
/// the series. Few in tests, so that they go through several passes.
const POSTINGS_IN_MEMORY: u64 = if cfg!(test) { 64 } else { 4 << 20 };
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 18;

/// Writes symbols, series and postings, in this order.
///
/// Either all symbols are put first ([`Writer::put_symbol`]) and series are added by symbol number
/// ([`Writer::add_numbered`]), or series are added by their texts ([`Writer::add`]).
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    state: State,
    last: Option<Labels>,
    series: u64,
    buffer: Vec<u8>,
    pairs: Vec<(u32, u32)>,
}

#[derive(Debug)]
enum State {
    /// Symbols are put.
    Symbols(SymbolTable),
    /// Symbols are done, series go to the index.
    Series(Body),
    /// Symbols are found in the series, which wait.
    Spool { spool: FileWriter, numbers: HashMap<Box<str>, u32> },
    /// The symbols could not be written.
    Failed,
}

impl Writer {
    /// Begins an index in the directory of a block, of series that are added by their texts.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn create(dir: &Path) -> Result<Self> {
        let spool = FileWriter::create(dir.join("index_tmp_series"))?;
        Ok(Self::new(dir, State::Spool { spool, numbers: HashMap::new() }))
    }

    /// Begins an index in the directory of a block, of which all symbols are put first.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn with_symbols(dir: &Path) -> Result<Self> {
        Ok(Self::new(dir, State::Symbols(SymbolTable::create(dir)?)))
    }

    fn new(dir: &Path, state: State) -> Self {
        Self { dir: dir.to_owned(), state, last: None, series: 0, buffer: Vec::new(), pairs: Vec::new() }
    }

    /// Puts the next symbol; they ascend, and are numbered from 0.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the order is broken or it is too late, or if the operating system refuses.
    pub fn put_symbol(&mut self, text: &str) -> Result<()> {
        match &mut self.state {
            State::Symbols(table) => table.put(text),
            _ => Err(Error::Invalid("symbols of an index come before its series".to_owned())),
        }
    }

    /// Adds a series. Series come in label order, their chunks in ascending, disjoint times.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the order is broken, or if the operating system refuses.
    pub fn add(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<()> {
        let State::Spool { numbers, .. } = &mut self.state else {
            return Err(Error::Invalid("series of this index are added by symbol number".to_owned()));
        };
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.clear();
        pairs.extend(labels.iter().map(|(name, value)| (number(numbers, name), number(numbers, value))));
        let added = self.add_numbered(labels, &pairs, chunks);
        self.pairs = pairs;
        added
    }

    /// As [`Writer::add`]; `pairs` are the numbers of the symbols of `labels`, name and value.
    ///
    /// # Errors
    /// As [`Writer::add`].
    pub fn add_numbered(
        &mut self,
        labels: &Labels,
        pairs: &[(u32, u32)],
        chunks: &[ChunkMeta],
    ) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| last >= labels) {
            return Err(Error::Invalid(format!("series {labels} is out of order in an index")));
        }
        self.buffer.clear();
        put_uvarint(&mut self.buffer, pairs.len() as u64);
        for (name, value) in pairs {
            put_uvarint(&mut self.buffer, u64::from(*name));
            put_uvarint(&mut self.buffer, u64::from(*value));
        }
        encode_chunks(&mut self.buffer, labels, chunks)?;
        self.finish_symbols()?;
        match &mut self.state {
            State::Series(body) => body.put_series(&mut self.buffer, pairs)?,
            State::Spool { spool, .. } => {
                let mut length = Vec::with_capacity(4);
                put_uvarint(&mut length, self.buffer.len() as u64);
                spool.write(&length)?;
                spool.write(&self.buffer)?;
            }
            State::Symbols(_) | State::Failed => return Err(incomplete()),
        }
        self.series += 1;
        self.last = Some(labels.clone());
        Ok(())
    }

    /// Number of series so far.
    pub fn len(&self) -> u64 {
        self.series
    }

    /// Whether there is no series yet.
    pub fn is_empty(&self) -> bool {
        self.series == 0
    }

    /// Writes and syncs the file.
    ///
    /// # Errors
    /// If the index grows past the limits of the format, or the operating system refuses.
    pub fn finish(mut self) -> Result<()> {
        self.finish_symbols()?;
        match self.state {
            State::Series(body) => body.finish(),
            State::Spool { spool, numbers } => unspool(&self.dir, spool, numbers)?.finish(),
            State::Symbols(_) | State::Failed => Err(incomplete()),
        }
    }

    fn finish_symbols(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Symbols(table) => self.state = State::Series(table.finish()?),
            other => self.state = other,
        }
        Ok(())
    }
}

fn incomplete() -> Error {
    Error::Invalid("the symbols of an index could not be written".to_owned())
}

fn number(numbers: &mut HashMap<Box<str>, u32>, text: &str) -> u32 {
    if let Some(number) = numbers.get(text) {
        return *number;
    }
    let number = numbers.len() as u32;
    numbers.insert(text.into(), number);
    number
}

/// Sorts the symbols that were found, and writes the series that waited with their final numbers.
fn unspool(dir: &Path, mut spool: FileWriter, numbers: HashMap<Box<str>, u32>) -> Result<Body> {
    spool.flush()?;
    let mut sorted: Vec<(Box<str>, u32)> = numbers.into_iter().collect();
    sorted.sort_unstable();
    let mut table = SymbolTable::create(dir)?;
    let mut ranks = vec![0; sorted.len()];
    for (rank, (text, number)) in sorted.into_iter().enumerate() {
        ranks[number as usize] = rank as u32;
        table.put(&text)?;
    }
    let mut body = table.finish()?;
    if spool.position() > 0 {
        let bytes = fs::map(spool.path())?;
        let damaged = |e: DecodeError| e.in_file(spool.path(), 0);
        let mut cursor = Cursor::new(&bytes);
        let (mut entry, mut pairs) = (Vec::new(), Vec::new());
        while !cursor.is_empty() {
            let mut waiting = Cursor::new(cursor.prefixed().map_err(damaged)?);
            entry.clear();
            pairs.clear();
            let labels = waiting.uvarint().map_err(damaged)?;
            put_uvarint(&mut entry, labels);
            for _ in 0..labels {
                let (name, value) = symbol_pair(&mut waiting).map_err(damaged)?;
                let pair = (ranks[name as usize], ranks[value as usize]);
                put_uvarint(&mut entry, u64::from(pair.0));
                put_uvarint(&mut entry, u64::from(pair.1));
                pairs.push(pair);
            }
            entry.extend_from_slice(waiting.rest());
            body.put_series(&mut entry, &pairs)?;
        }
    }
    fs::remove_file(spool.path())?;
    Ok(body)
}

fn symbol_pair(cursor: &mut Cursor<'_>) -> Result<(u32, u32), DecodeError> {
    Ok((cursor.uvarint32()?, cursor.uvarint32()?))
}

/// The header and the symbol table, as it grows.
#[derive(Debug)]
struct SymbolTable {
    file: FileWriter,
    toc: Toc,
    table: Table,
    last: Option<Box<str>>,
    buffer: Vec<u8>,
}

impl SymbolTable {
    fn create(dir: &Path) -> Result<Self> {
        let mut file = FileWriter::create(dir.join(FILE_NAME))?;
        let mut head = Vec::with_capacity(HEADER_LEN);
        put_be32(&mut head, MAGIC);
        head.push(VERSION);
        file.write(&head)?;
        let toc = Toc { symbols: file.position(), ..Toc::default() };
        let table = Table::begin(&mut file)?;
        Ok(Self { file, toc, table, last: None, buffer: Vec::new() })
    }

    fn put(&mut self, text: &str) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| &**last >= text) {
            return Err(Error::Invalid(format!("symbol {text:?} is out of order in an index")));
        }
        self.buffer.clear();
        put_prefixed(&mut self.buffer, text.as_bytes());
        self.last = Some(text.into());
        self.table.put(&mut self.file, &self.buffer)
    }

    fn finish(mut self) -> Result<Body> {
        self.table.finish(&mut self.file)?;
        self.toc.series = self.file.position();
        Ok(Body { file: self.file, toc: self.toc, series: 0, postings: BTreeMap::new() })
    }
}

/// Everything after the symbols.
#[derive(Debug)]
struct Body {
    file: FileWriter,
    toc: Toc,
    series: u64,
    /// How many postings there are by label name, as its symbol.
    postings: BTreeMap<u32, u64>,
}

impl Body {
    /// Appends a series; its checksum is added to `entry`.
    fn put_series(&mut self, entry: &mut Vec<u8>, pairs: &[(u32, u32)]) -> Result<()> {
        self.file.pad(SERIES_ALIGN)?;
        if self.file.position() / SERIES_ALIGN > u64::from(u32::MAX) {
            return Err(Error::Invalid("an index would exceed 64 GiB".to_owned()));
        }
        let mut length = Vec::with_capacity(4);
        put_uvarint(&mut length, entry.len() as u64);
        let crc = crc32c(entry);
        put_be32(entry, crc);
        self.file.write(&length)?;
        self.file.write(entry)?;
        for (name, _) in pairs {
            *self.postings.entry(*name).or_default() += 1;
        }
        self.series += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.toc.label_indices = self.file.position();
        self.file.pad(4)?;
        self.toc.postings = self.file.position();
        self.file.flush()?;
        let path = self.file.path().to_owned();
        let written = Written { bytes: fs::map(&path)?, path, toc: self.toc };
        let table = self.write_postings(&written)?;
        drop(written);
        self.toc.label_indices_table = self.file.position();
        self.toc.postings_table = self.file.position();
        append_table(&mut self.file, table)?;
        self.file.write(&self.toc.encode())?;
        if self.file.position() > SERIES_ALIGN << 32 {
            return Err(Error::Invalid("an index would exceed 64 GiB".to_owned()));
        }
        self.file.finish()
    }

    /// Writes all postings lists; gives the entries of the postings offset table.
    fn write_postings(&mut self, written: &Written) -> Result<Spooled> {
        let symbols = written.symbols()?;
        let dir = self.file.path().parent().unwrap_or(Path::new(""));
        let mut table = Spooled { file: FileWriter::create(dir.join("index_tmp_po"))?, entries: 0 };
        let all = self.write_all()?;
        let mut list = List::begin(&mut self.file, self.series)?;
        written.for_each_series(|reference, _| list.put(&mut self.file, reference))?;
        list.finish(&mut self.file)?;
        table.put("", "", all)?;
        let counts: Vec<(u32, u64)> = std::mem::take(&mut self.postings).into_iter().collect();
        let mut rest = counts.as_slice();
        while let Some(((first, count), _)) = rest.split_first() {
            let mut sum = *count;
            let more = rest[1..].iter().take_while(|(_, count)| {
                sum += count;
                sum <= POSTINGS_IN_MEMORY
            });
            let n = 1 + more.count();
            let (batch, tail) = rest.split_at(n);
            let last = batch.last().map_or(*first, |(name, _)| *name);
            let by_name = written.postings_of(*first..=last, batch)?;
            for ((name, _), postings) in batch.iter().zip(by_name) {
                let name = symbols.text(*name)?;
                for run in postings.chunk_by(|a, b| a >> 32 == b >> 32) {
                    let value = symbols.text((run[0] >> 32) as u32)?;
                    let offset = self.write_list(run)?;
                    table.put(name, value, offset)?;
                }
            }
            rest = tail;
        }
        Ok(table)
    }

    /// Where the list of all series will begin.
    fn write_all(&mut self) -> Result<u64> {
        self.file.pad(4)?;
        Ok(self.file.position())
    }

    /// Writes the list of the references in the lower halves of `run` and says where it begins.
    fn write_list(&mut self, run: &[u64]) -> Result<u64> {
        self.file.pad(4)?;
        let start = self.file.position();
        let mut list = List::begin(&mut self.file, run.len() as u64)?;
        for posting in run {
            list.put(&mut self.file, *posting as u32)?;
        }
        list.finish(&mut self.file)?;
        Ok(start)
    }
}

/// One postings list, as it grows.
struct List {
    buffer: Vec<u8>,
    crc: u32,
}

impl List {
    fn begin(file: &mut FileWriter, len: u64) -> Result<Self> {
        let length = u32::try_from(4 + 4 * len)
            .map_err(|_| Error::Invalid("a postings list of an index would exceed 4 GiB".to_owned()))?;
        file.write(&length.to_be_bytes())?;
        let count = (len as u32).to_be_bytes();
        file.write(&count)?;
        Ok(Self { buffer: Vec::with_capacity(4 * (len as usize).min(1024)), crc: crc32c(&count) })
    }

    fn put(&mut self, file: &mut FileWriter, reference: u32) -> Result<()> {
        if self.buffer.len() == 4096 {
            self.flush(file)?;
        }
        put_be32(&mut self.buffer, reference);
        Ok(())
    }

    fn flush(&mut self, file: &mut FileWriter) -> Result<()> {
        self.crc = crc32c_append(self.crc, &self.buffer);
        file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, file: &mut FileWriter) -> Result<()> {
        self.flush(file)?;
        file.write(&self.crc.to_be_bytes())
    }
}

/// What is already in the file: symbols and series.
struct Written {
    path: PathBuf,
    bytes: Mmap,
    toc: Toc,
}

impl Written {
    fn damaged(&self, e: DecodeError) -> Error {
        e.in_file(&self.path, 0)
    }

    fn symbols(&self) -> Result<Texts<'_>> {
        // Length before, checksum behind.
        let range = self.toc.symbols as usize + 4..self.toc.series as usize - 4;
        let bytes = self.bytes.get(range).unwrap_or_default();
        let symbols = Symbols::open(bytes).map_err(|e| self.damaged(e))?;
        Ok(Texts { symbols, bytes, path: &self.path })
    }

    /// Calls `visit` with the reference of each series and a cursor at its labels.
    fn for_each_series(&self, mut visit: impl FnMut(u32, Cursor<'_>) -> Result<()>) -> Result<()> {
        let end = self.toc.label_indices as usize;
        let mut cursor = Cursor::at(&self.bytes[..end], self.toc.series as usize);
        loop {
            let padding = cursor.offset().next_multiple_of(SERIES_ALIGN as usize) - cursor.offset();
            if cursor.remaining() <= padding {
                return Ok(());
            }
            cursor.bytes(padding).map_err(|e| self.damaged(e))?;
            let reference = (cursor.offset() as u64 / SERIES_ALIGN) as u32;
            let body = cursor.prefixed().and_then(|body| cursor.be32().map(|_| body));
            visit(reference, Cursor::new(body.map_err(|e| self.damaged(e))?))?;
        }
    }

    /// Postings of each name of `batch`, which lie in `names`: `value << 32 | reference`, ascending.
    fn postings_of(
        &self,
        names: std::ops::RangeInclusive<u32>,
        batch: &[(u32, u64)],
    ) -> Result<Vec<Vec<u64>>> {
        let mut out: Vec<Vec<u64>> = batch.iter().map(|(_, n)| Vec::with_capacity(*n as usize)).collect();
        self.for_each_series(|reference, mut cursor| {
            for _ in 0..cursor.uvarint().map_err(|e| self.damaged(e))? {
                let (name, value) = symbol_pair(&mut cursor).map_err(|e| self.damaged(e))?;
                if !names.contains(&name) {
                    continue;
                }
                if let Ok(i) = batch.binary_search_by_key(&name, |(name, _)| *name) {
                    out[i].push(u64::from(value) << 32 | u64::from(reference));
                }
            }
            Ok(())
        })?;
        out.iter_mut().for_each(|postings| postings.sort_unstable());
        Ok(out)
    }
}

/// Symbols by number.
struct Texts<'w> {
    symbols: Symbols,
    bytes: &'w [u8],
    path: &'w Path,
}

impl<'w> Texts<'w> {
    fn text(&self, number: u32) -> Result<&'w str> {
        self.symbols
            .get(self.bytes, number)
            .ok_or_else(|| Error::corrupt(self.path, 0, format!("there is no symbol {number}")))
    }
}

/// Entries of the postings offset table, which come while postings are written and stand behind them.
struct Spooled {
    file: FileWriter,
    entries: u32,
}

impl Spooled {
    fn put(&mut self, name: &str, value: &str, offset: u64) -> Result<()> {
        let mut out = Vec::with_capacity(name.len() + value.len() + 16);
        put_uvarint(&mut out, 2);
        put_prefixed(&mut out, name.as_bytes());
        put_prefixed(&mut out, value.as_bytes());
        put_uvarint(&mut out, offset);
        self.entries += 1;
        self.file.write(&out)
    }
}

/// Moves the entries behind what is in `file`, as a table.
fn append_table(file: &mut FileWriter, mut spooled: Spooled) -> Result<()> {
    spooled.file.flush()?;
    let bytes = fs::map(spooled.file.path())?;
    let mut table = Table::begin(file)?;
    for piece in bytes.chunks(COPY_BYTES) {
        table.put(file, piece)?;
    }
    table.count = spooled.entries;
    table.finish(file)?;
    drop(bytes);
    fs::remove_file(spooled.file.path())
}

/// A section of counted entries behind its length, with a checksum, as it grows.
#[derive(Debug)]
struct Table {
    start: u64,
    count: u32,
    /// Of the entries alone; the count that comes before them is known last.
    crc: u32,
}

impl Table {
    fn begin(file: &mut FileWriter) -> Result<Self> {
        let start = file.position();
        file.write(&[0; 8])?;
        Ok(Self { start, count: 0, crc: 0 })
    }

    fn put(&mut self, file: &mut FileWriter, entry: &[u8]) -> Result<()> {
        self.count += 1;
        self.crc = crc32c_append(self.crc, entry);
        file.write(entry)
    }

    fn finish(self, file: &mut FileWriter) -> Result<()> {
        let length = u32::try_from(file.position() - self.start - 4)
            .map_err(|_| Error::Invalid("a table of an index would exceed 4 GiB".to_owned()))?;
        let count = self.count.to_be_bytes();
        let crc = crc32c_combine(crc32c(&count), self.crc, length as usize - 4);
        let mut head = Vec::with_capacity(8);
        put_be32(&mut head, length);
        head.extend_from_slice(&count);
        file.write_at(self.start, &head)?;
        file.write(&crc.to_be_bytes())
    }
}

fn encode_chunks(out: &mut Vec<u8>, labels: &Labels, chunks: &[ChunkMeta]) -> Result<()> {
    put_uvarint(out, chunks.len() as u64);
    let mut previous: Option<&ChunkMeta> = None;
    for chunk in chunks {
        let ordered = chunk.mint <= chunk.maxt && previous.is_none_or(|p| p.maxt < chunk.mint);
        if !ordered {
            return Err(Error::Invalid(format!("chunks of series {labels} overlap or are out of order")));
        }
        match previous {
            None => {
                put_varint(out, chunk.mint);
                put_uvarint(out, chunk.maxt.wrapping_sub(chunk.mint) as u64);
                put_uvarint(out, chunk.reference.0);
            }
            Some(p) => {
                put_uvarint(out, chunk.mint.wrapping_sub(p.maxt) as u64);
                put_uvarint(out, chunk.maxt.wrapping_sub(chunk.mint) as u64);
                put_varint(out, chunk.reference.0.wrapping_sub(p.reference.0) as i64);
            }
        }
        previous = Some(chunk);
    }
    Ok(())
}
