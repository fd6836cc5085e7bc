//! The few calls of libvirt that the `virt` crate does not wrap: counters of a domain, and its events.
//!
//! The only `unsafe` of this program, each block with the reason it is sound. Promised: whatever libvirt hands
//! out is copied before it is given back, and no panic crosses into C.
//! Deliberately absent: any meaning of what is read; that is `metrics`' and `events`'.

#![allow(unsafe_code, reason = "libvirt is C, and these calls have no safe wrapper")]

use std::ffi::{CStr, c_int, c_uint};
use std::ptr;

use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// Counters by libvirt's names.
pub(crate) type Counters = Vec<(String, u64)>;

/// The counters of each host CPU that the domain may run on, in the host's order.
///
/// # Errors
/// libvirt's; above all where it has no cgroup of the domain to read them from.
pub(crate) fn cpu_stats(domain: &Domain) -> Result<Vec<Counters>, Error> {
    let ask = |params: sys::virTypedParameterPtr, each: usize, first: usize, cpus: usize| {
        // SAFETY: the domain is alive as long as its borrow, and `params` is null or has room for `each` × `cpus`.
        let answered = unsafe {
            sys::virDomainGetCPUStats(
                domain.as_ptr(),
                params,
                each as c_uint,
                first as c_int,
                cpus as c_uint,
                0,
            )
        };
        usize::try_from(answered).map_err(|_| Error::last_error())
    };
    let cpus = ask(ptr::null_mut(), 0, 0, 0)?;
    let each = ask(ptr::null_mut(), 0, 0, 1)?;
    let mut stats = Vec::with_capacity(cpus);
    // libvirt answers at most 128 CPUs at once; one at a time needs no such limit.
    for cpu in 0..cpus {
        let mut room = Room::new(each);
        let filled = ask(room.as_mut_ptr(), each, cpu, 1)?;
        stats.push(room.counters(filled));
    }
    Ok(stats)
}

/// CPU time of each virtual CPU, in nanoseconds.
///
/// # Errors
/// libvirt's.
pub(crate) fn vcpu_times(domain: &Domain, most: u32) -> Result<Vec<u64>, Error> {
    let none = sys::virVcpuInfo { number: 0, state: 0, cpuTime: 0, cpu: 0 };
    let mut infos = vec![none; most as usize];
    // SAFETY: the domain is alive, `infos` has room for `most` of them, and no CPU maps are asked for.
    let filled = unsafe {
        sys::virDomainGetVcpus(domain.as_ptr(), infos.as_mut_ptr(), most as c_int, ptr::null_mut(), 0)
    };
    let filled = usize::try_from(filled).map_err(|_| Error::last_error())?;
    Ok(infos.iter().take(filled).map(|info| info.cpuTime).collect())
}

/// The counters of a disk, by its name in the guest such as `vda`.
///
/// # Errors
/// libvirt's.
pub(crate) fn block_stats(domain: &Domain, device: &CStr) -> Result<Counters, Error> {
    let ask = |params: sys::virTypedParameterPtr, room: c_int| {
        let mut count = room;
        // SAFETY: the domain and the text are alive, and `params` is null or has room for `room`.
        let answered = unsafe {
            sys::virDomainBlockStatsFlags(domain.as_ptr(), device.as_ptr(), params, &raw mut count, 0)
        };
        if answered < 0 { Err(Error::last_error()) } else { Ok(count) }
    };
    let count = ask(ptr::null_mut(), 0)?;
    let mut room = Room::new(usize::try_from(count).unwrap_or(0));
    let filled = ask(room.as_mut_ptr(), count)?;
    Ok(room.counters(usize::try_from(filled).unwrap_or(0)))
}

/// Room for libvirt's typed parameters; what libvirt put into it is freed with it.
struct Room(Vec<sys::virTypedParameter>);

impl Room {
    fn new(count: usize) -> Room {
        // SAFETY: the struct is plain data, and zero is a value of each of its fields.
        let empty: sys::virTypedParameter = unsafe { std::mem::zeroed() };
        Room(vec![empty; count])
    }

    fn as_mut_ptr(&mut self) -> sys::virTypedParameterPtr {
        self.0.as_mut_ptr()
    }

    /// The first `filled`, those that are whole numbers and not negative.
    fn counters(&self, filled: usize) -> Counters {
        let counter = |param: &sys::virTypedParameter| {
            // SAFETY: libvirt ends the name within its field, and room that it left alone is all zeros.
            let name = unsafe { CStr::from_ptr(param.field.as_ptr()) };
            Some((name.to_str().ok()?.to_owned(), whole(param)?))
        };
        self.0.iter().take(filled).filter_map(counter).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let count = c_int::try_from(self.0.len()).unwrap_or(0);
        // SAFETY: the room has so many parameters; those that libvirt left alone hold nothing to free.
        unsafe { sys::virTypedParamsClear(self.0.as_mut_ptr(), count) };
    }
}

fn whole(param: &sys::virTypedParameter) -> Option<u64> {
    let kind = c_uint::try_from(param.type_).ok()?;
    // SAFETY: the type says which field of the union libvirt has written.
    unsafe {
        match kind {
            sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
            sys::VIR_TYPED_PARAM_UINT => Some(param.value.ui.into()),
            sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
            sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
            _ => None,
        }
    }
}
