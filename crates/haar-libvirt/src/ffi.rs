//! The few calls of libvirt that the `virt` crate does not wrap: counters of a domain, and its events.
//!
//! The only `unsafe` of this program, each block with the reason it is sound. Promised: whatever libvirt hands
//! out is copied before it is given back, and no panic crosses into C.
//! Deliberately absent: any meaning of what is read; that is `metrics`' and `events`'.

#![allow(unsafe_code, reason = "libvirt is C, and these calls have no safe wrapper")]

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use virt::connect::Connect;
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

/// How long the guest's agent may take for one answer, from now on.
///
/// # Errors
/// libvirt's.
pub(crate) fn limit_agent(domain: &Domain, seconds: u16) -> Result<(), Error> {
    // SAFETY: the domain is alive as long as its borrow.
    let done = unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), c_int::from(seconds), 0) };
    if done < 0 { Err(Error::last_error()) } else { Ok(()) }
}

/// Has the guest's agent freeze every file system; how many.
///
/// # Errors
/// libvirt's.
pub(crate) fn freeze(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: the domain is alive as long as its borrow; no list of mount points is given.
    let frozen = unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    u32::try_from(frozen).map_err(|_| Error::last_error())
}

/// Has the guest's agent thaw every file system; how many.
///
/// # Errors
/// libvirt's.
pub(crate) fn thaw(domain: &Domain) -> Result<u32, Error> {
    // SAFETY: as in `freeze`.
    let thawed = unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    u32::try_from(thawed).map_err(|_| Error::last_error())
}

/// Calls `told` with a domain's name whenever one starts, stops, pauses, goes on, crashes, is defined, removed or
/// reset; on the thread of the event loop, so it must be quick. Holds as long as the connection is open.
///
/// # Errors
/// libvirt's.
pub(crate) fn on_changes(connection: &Connect, told: &Arc<Told>) -> Result<(), Error> {
    // SAFETY: a callback is handed over with the event's number, as libvirt's own macro does; libvirt calls each with
    // the arguments of its number.
    let lifecycle = unsafe {
        std::mem::transmute::<sys::virConnectDomainEventCallback, sys::virConnectDomainEventGenericCallback>(
            Some(lifecycle),
        )
    };
    register(connection, sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, told)?;
    register(connection, sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(reset), told)
}

/// What is called with the domain's name and what happened to it.
pub(crate) type Told = dyn Fn(&str, Happened) + Send + Sync;

/// What happened to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    /// libvirt's number of the kind of lifecycle event.
    Lifecycle(i32),
    /// It began again from its firmware, by its own doing or by its reset button.
    Reset,
}

fn register(
    connection: &Connect,
    event: sys::virDomainEventID,
    callback: sys::virConnectDomainEventGenericCallback,
    told: &Arc<Told>,
) -> Result<(), Error> {
    let opaque = Box::into_raw(Box::new(Arc::clone(told))).cast::<c_void>();
    // SAFETY: the connection is alive; what `opaque` points to lives until libvirt calls `free` with it, once.
    let registered = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connection.as_ptr(),
            ptr::null_mut(),
            event as c_int,
            callback,
            opaque,
            Some(free),
        )
    };
    if registered < 0 {
        // SAFETY: libvirt has not taken it, so it is ours to free.
        unsafe { free(opaque) };
        return Err(Error::last_error());
    }
    Ok(())
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt calls with a live domain and with what was registered.
    unsafe { tell(domain, Happened::Lifecycle(event), opaque) };
    0
}

unsafe extern "C" fn reset(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `lifecycle`.
    unsafe { tell(domain, Happened::Reset, opaque) };
}

unsafe fn tell(domain: sys::virDomainPtr, happened: Happened, opaque: *mut c_void) {
    // SAFETY: the caller's promise; the name lives as long as the domain.
    let (name, told) = unsafe {
        let name = sys::virDomainGetName(domain);
        if name.is_null() {
            return;
        }
        (CStr::from_ptr(name).to_string_lossy(), &*opaque.cast::<Arc<Told>>())
    };
    // A panic must not cross into C; its hook has told of it.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| told(&name, happened)));
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `register`, and freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Arc<Told>>()) });
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
