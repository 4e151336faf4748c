//! The CPU's memory of a session, which ONNX Runtime calls its arena: how much there is, and how it is freed.
//! [`super::retention`] says when.

use super::retention::Retention;
use super::value;
use crate::engine::interface::{Port, Signature};
use crate::tensor::Tensor;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::{AsPointer, Error, api};
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Has a run free what is unused at its end.
const SHRINK: (&str, &str) = ("memory.enable_memory_arena_shrinkage", "cpu:0");

/// So much may be kept of runs of varying sizes, by all sessions together, in bytes.
const MOST: u64 = 64 << 20;

/// Bytes that all sessions keep of runs of varying sizes.
pub(crate) type Kept = Arc<AtomicU64>;

/// The memory of a session.
pub(super) struct Memory {
    retention: Retention,
    allocator: Allocator,
    /// Of a run that ends before its first operator, and frees what is unused.
    freeing: RunOptions,
    /// What there was before the first run, such as weights.
    initial: u64,
    /// This session's part of what all keep.
    part: u64,
    all: Kept,
}

impl Memory {
    /// Of a session that has not run yet, of which runs of so many rows are usual.
    pub(super) fn new(session: &Session, signature: &Signature, rows: u32, all: Kept) -> ort::Result<Self> {
        let device = AllocationDevice::CPU;
        let info = MemoryInfo::new(device, 0, AllocatorType::Arena, MemoryType::Default)?;
        let mut freeing = RunOptions::new()?;
        freeing.set(SHRINK.0, SHRINK.1)?;
        freeing.terminate()?;
        let mut memory = Self {
            retention: Retention::new(signature, rows),
            allocator: Allocator::new(session, info)?,
            freeing,
            initial: 0,
            part: 0,
            all,
        };
        if memory.retention.varies() {
            // The first piece is never freed, and is as large as what is asked for first.
            memory.allocator.alloc::<u8>(1)?;
        }
        memory.initial = memory.bytes();
        Ok(memory)
    }

    /// A run of these inputs begins. Whether its sizes are neither usual nor those of the run before.
    pub(super) fn begin(&mut self, inputs: &[Tensor]) -> bool {
        self.retention.begin(inputs)
    }

    /// A run has made these outputs. Whether to free its memory now.
    pub(super) fn end(&mut self, outputs: &[Tensor], is_other: bool) -> bool {
        if self.retention.is_first() {
            let kept = self.kept();
            self.retention.warmed_up(kept);
        }
        self.retention.end(outputs);
        is_other && self.count() > MOST
    }

    /// What all sessions keep.
    fn count(&mut self) -> u64 {
        let part = self.kept();
        let before = std::mem::replace(&mut self.part, part);
        let all = self.all.fetch_add(part.wrapping_sub(before), Ordering::Relaxed);
        all.wrapping_add(part).wrapping_sub(before)
    }

    /// Whether more is kept than the next run may need.
    pub(super) fn is_held(&self) -> bool {
        self.retention.is_held() || self.retention.is_much(self.kept())
    }

    /// The model is idle, and what is kept will be freed.
    pub(super) const fn let_go(&mut self) {
        self.retention.let_go();
    }

    /// Frees what is kept. ONNX Runtime does that at the end of runs only, so this begins one.
    pub(super) fn free(&mut self, session: &mut Session, inputs: &[Port]) {
        let tensors: Vec<Tensor> = inputs.iter().filter_map(smallest).collect();
        let names = inputs.iter().map(|port| port.name.as_str());
        let values = tensors.iter().filter_map(|tensor| value::borrow(tensor).ok());
        let values: Vec<(&str, SessionInputValue<'_>)> = names.zip(values).collect();
        // It always fails, since it is to end.
        let _ = session.run_with_options(values, &self.freeing);
        self.count();
    }

    /// Bytes that runs have left.
    fn kept(&self) -> u64 {
        self.bytes().saturating_sub(self.initial)
    }

    /// What there is, in bytes, used or not.
    #[allow(unsafe_code)]
    fn bytes(&self) -> u64 {
        let mut entries = ptr::null_mut();
        // SAFETY: the allocator lives as long as this; what is returned is a list, or an error and no list.
        let status = unsafe {
            Error::result_from_status((api().AllocatorGetStats)(self.allocator.ptr(), &raw mut entries))
        };
        if status.is_err() || entries.is_null() {
            return 0;
        }
        // SAFETY: the list is not released before the number has been read; a value is a text, or null.
        unsafe {
            let value = (api().GetKeyValue)(entries, c"TotalAllocated".as_ptr());
            let text = (!value.is_null())
                .then(|| CStr::from_ptr(value).to_str().ok())
                .flatten();
            let bytes = text.and_then(|text| text.parse().ok()).unwrap_or(0);
            (api().ReleaseKeyValuePairs)(entries);
            bytes
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.all.fetch_sub(self.part, Ordering::Relaxed);
    }
}

/// The smallest tensor that an input takes.
fn smallest(port: &Port) -> Option<Tensor> {
    let shape = port.shape.iter().map(|&size| if size < 0 { 1 } else { size });
    Tensor::zeros(port.datatype, shape.collect())
}
