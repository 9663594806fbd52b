//! Writes an index from series in label order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{FILE_NAME, HEADER_LEN, MAGIC, SERIES_ALIGN, Toc, VERSION};
use crate::chunks::ChunkMeta;
use crate::encoding::{Cursor, crc32c, crc32c_append, put_be32, put_prefixed, put_uvarint, put_varint};
use crate::error::{Error, Result};
use crate::fs::{self, FileWriter};
use crate::labels::Labels;

/// Collects series, then writes the file.
///
/// Symbols come first in the file but are known last, so series are spooled to a temporary file with
/// provisional label numbers. Memory holds the symbols and, while postings are written, one `u32` for
/// each label of each series.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    spool: FileWriter,
    symbols: HashMap<Box<str>, u32>,
    /// Label pairs by provisional number, as provisional symbol numbers.
    pairs: Vec<(u32, u32)>,
    pair_numbers: HashMap<(u32, u32), u32>,
    last: Option<Labels>,
    series: u64,
    buffer: Vec<u8>,
    chunks: Vec<u8>,
}

impl Writer {
    /// Begins an index in the directory of a block.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn create(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            spool: FileWriter::create(dir.join("index_tmp_series"))?,
            symbols: HashMap::new(),
            pairs: Vec::new(),
            pair_numbers: HashMap::new(),
            last: None,
            series: 0,
            buffer: Vec::new(),
            chunks: Vec::new(),
        })
    }

    /// Adds a series. Series come in label order, their chunks in ascending, disjoint times.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the order is broken, or if the operating system refuses.
    pub fn add(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<()> {
        if self.last.as_ref().is_some_and(|last| last >= labels) {
            return Err(Error::Invalid(format!("series {labels} is out of order in an index")));
        }
        self.chunks.clear();
        encode_chunks(&mut self.chunks, labels, chunks)?;
        self.buffer.clear();
        put_uvarint(&mut self.buffer, labels.len() as u64);
        for (name, value) in labels.iter() {
            let pair = (self.symbol(name), self.symbol(value));
            let next = self.pairs.len() as u32;
            let number = *self.pair_numbers.entry(pair).or_insert(next);
            if number == next {
                self.pairs.push(pair);
            }
            put_uvarint(&mut self.buffer, u64::from(number));
        }
        put_prefixed(&mut self.buffer, &self.chunks);
        self.spool.write(&self.buffer)?;
        self.series += 1;
        self.last = Some(labels.clone());
        Ok(())
    }

    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(number) = self.symbols.get(text) {
            return *number;
        }
        let number = self.symbols.len() as u32;
        self.symbols.insert(text.into(), number);
        number
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
        self.spool.flush()?;
        let mut file = FileWriter::create(self.dir.join(FILE_NAME))?;
        let mut head = Vec::with_capacity(HEADER_LEN);
        put_be32(&mut head, MAGIC);
        head.push(VERSION);
        file.write(&head)?;

        let mut toc = Toc { symbols: file.position(), ..Toc::default() };
        let (names, ranks) = sorted_symbols(std::mem::take(&mut self.symbols));
        write_table(&mut file, names.iter(), |out, s| put_prefixed(out, s.as_bytes()))?;

        toc.series = file.position();
        let (all, by_pair) = self.write_series(&mut file, &ranks)?;

        toc.label_indices = file.position();
        file.pad(4)?;
        toc.postings = file.position();
        // (name, value, offset) in order of name and value; the first is the key of all series.
        let mut table = vec![("", "", write_postings(&mut file, &all)?)];
        for pair in self.pairs_in_order(&ranks) {
            let (name, value) = self.pairs[pair];
            let offset = write_postings(&mut file, &by_pair[pair])?;
            let text = |symbol: u32| &*names[ranks[symbol as usize] as usize];
            table.push((text(name), text(value), offset));
        }

        toc.label_indices_table = file.position();
        toc.postings_table = file.position();
        write_table(&mut file, table.iter(), |out, (name, value, offset)| {
            put_uvarint(out, 2);
            put_prefixed(out, name);
            put_prefixed(out, value);
            put_uvarint(out, *offset);
        })?;
        file.write(&toc.encode())?;
        if file.position() > SERIES_ALIGN << 32 {
            return Err(Error::Invalid("an index would exceed 64 GiB".to_owned()));
        }
        file.finish()?;
        fs::remove_file(self.spool.path())
    }

    /// Writes series from the spool; gives the references of all, and those with each pair.
    fn write_series(&self, file: &mut FileWriter, ranks: &[u32]) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let mut all = Vec::with_capacity(self.series as usize);
        let mut by_pair = vec![Vec::new(); self.pairs.len()];
        let bytes = if self.series > 0 { Some(fs::map(self.spool.path())?) } else { None };
        let mut cursor = Cursor::new(bytes.as_deref().unwrap_or_default());
        let (mut entry, mut length) = (Vec::new(), Vec::new());
        let damaged = |e: crate::encoding::DecodeError| e.in_file(self.spool.path(), 0);
        while !cursor.is_empty() {
            file.pad(SERIES_ALIGN)?;
            let reference = u32::try_from(file.position() / SERIES_ALIGN)
                .map_err(|_| Error::Invalid("an index would exceed 64 GiB".to_owned()))?;
            all.push(reference);
            entry.clear();
            let labels = cursor.uvarint().map_err(damaged)?;
            put_uvarint(&mut entry, labels);
            for _ in 0..labels {
                let pair = cursor.uvarint32().map_err(damaged)? as usize;
                let (name, value) = self.pairs[pair];
                put_uvarint(&mut entry, u64::from(ranks[name as usize]));
                put_uvarint(&mut entry, u64::from(ranks[value as usize]));
                by_pair[pair].push(reference);
            }
            entry.extend_from_slice(cursor.prefixed().map_err(damaged)?);
            length.clear();
            put_uvarint(&mut length, entry.len() as u64);
            let crc = crc32c(&entry);
            put_be32(&mut entry, crc);
            file.write(&length)?;
            file.write(&entry)?;
        }
        Ok((all, by_pair))
    }

    /// Provisional pair numbers in order of name and value.
    fn pairs_in_order(&self, ranks: &[u32]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.pairs.len()).collect();
        order.sort_unstable_by_key(|i| {
            let (name, value) = self.pairs[*i];
            (ranks[name as usize], ranks[value as usize])
        });
        order
    }
}

/// Symbols in order, and the place of each by its provisional number.
fn sorted_symbols(symbols: HashMap<Box<str>, u32>) -> (Vec<Box<str>>, Vec<u32>) {
    let mut sorted: Vec<(Box<str>, u32)> = symbols.into_iter().collect();
    sorted.sort_unstable();
    let mut ranks = vec![0; sorted.len()];
    for (rank, (_, number)) in sorted.iter().enumerate() {
        ranks[*number as usize] = rank as u32;
    }
    (sorted.into_iter().map(|(text, _)| text).collect(), ranks)
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

/// Writes one postings list and says where it begins.
fn write_postings(file: &mut FileWriter, references: &[u32]) -> Result<u64> {
    file.pad(4)?;
    let start = file.position();
    let mut out = Vec::with_capacity(12 + 4 * references.len());
    put_be32(&mut out, 4 + 4 * references.len() as u32);
    put_be32(&mut out, references.len() as u32);
    for r in references {
        put_be32(&mut out, *r);
    }
    let crc = crc32c(&out[4..]);
    put_be32(&mut out, crc);
    file.write(&out)?;
    Ok(start)
}

/// Writes a section of counted entries behind its length, with a checksum.
fn write_table<T>(
    file: &mut FileWriter,
    entries: impl ExactSizeIterator<Item = T>,
    mut encode: impl FnMut(&mut Vec<u8>, T),
) -> Result<()> {
    let start = file.position();
    let mut out = Vec::new();
    put_be32(&mut out, 0);
    put_be32(&mut out, entries.len() as u32);
    let mut crc = crc32c(&out[4..]);
    file.write(&out)?;
    for entry in entries {
        out.clear();
        encode(&mut out, entry);
        crc = crc32c_append(crc, &out);
        file.write(&out)?;
    }
    let length = u32::try_from(file.position() - start - 4)
        .map_err(|_| Error::Invalid("a table of an index would exceed 4 GiB".to_owned()))?;
    file.write_at(start, &length.to_be_bytes())?;
    file.write(&crc.to_be_bytes())
}
