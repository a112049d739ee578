//! libvirt's events: C callbacks on one side, [`Wake`] messages on the other.
//!
//! The only `unsafe` code of vifd. `virt` wraps libvirt's calls but not its events, so the registrations come from
//! `virt-sys`. A callback copies the domain's UUID, sends, and returns: it makes no libvirt call over the connection,
//! takes no lock and logs nothing, because it runs on the thread that serves every connection.

#![allow(unsafe_code, reason = "libvirt's events exist only as C callbacks")]

use std::{
    ffi::{c_char, c_int, c_void},
    sync::OnceLock,
    thread,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error};
use uuid::Uuid;
use virt::{connect::Connect, error::Error};
use virt_sys as sys;

/// Why a session should look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something about this domain changed.
    Domain(Uuid),
    /// The description of this domain changed, and not its state.
    Description(Uuid),
    /// Somebody asks for this domain to be read again. That can wait until those are read that changed.
    Asked(Uuid),
    /// This domain is leaving for another host.
    Leaving(Uuid),
    /// A domain may have come of which libvirt says nothing yet.
    List,
    /// The connection is gone, and why.
    Closed(&'static str),
}

/// Starts libvirt's event loop on a thread of its own, once, for the life of the process. Must come before the first
/// connection: libvirt remembers at `open` whether there is a loop to serve keepalive and events.
///
/// # Errors
/// libvirt refuses, or no thread can be had.
pub fn start_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // Without this libvirt prints every error to stderr, beside our log.
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(|e| e.message().to_owned())?;
            thread::Builder::new().name("libvirt-events".into()).spawn(run_loop).map_err(|e| e.to_string())?;
            Ok(())
        })
        .clone()
}

fn run_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            error!(error = error.message(), "libvirt's event loop failed; trying again");
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// A connection that carries events and nothing else, until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    connect: Connect,
    callbacks: Vec<c_int>,
    close_callback: bool,
}

impl Subscription {
    /// Registers for the end of the connection and for everything that may change a domain or its devices.
    ///
    /// # Errors
    /// A registration is refused, or the connection is lost.
    pub fn new(connect: Connect, keepalive_seconds: i32, wakes: &UnboundedSender<Wake>) -> Result<Self, Error> {
        let mut subscription = Self { connect, callbacks: Vec::new(), close_callback: false };
        subscription.register_close(wakes)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, generic_lifecycle(), wakes)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, generic_device(), wakes)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, generic_device(), wakes)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, generic_metadata(), wakes)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, generic_migration(), wakes)?;
        // Last, since no call may be under way when keepalive sends; see `Connection` of the worker.
        if let Err(error) = subscription.connect.set_keep_alive(keepalive_seconds, KEEPALIVE_COUNT) {
            // The test driver has no connection that could die.
            debug!(error = error.message(), "no keepalive");
        }
        Ok(subscription)
    }

    fn register(
        &mut self,
        event: sys::virDomainEventID,
        callback: Generic,
        wakes: &UnboundedSender<Wake>,
    ) -> Result<(), Error> {
        let opaque = Box::into_raw(Box::new(wakes.clone())).cast();
        // SAFETY: `connect` is open for as long as `self` lives. No domain (null) means every domain. `callback` has
        // the C signature that belongs to `event`. libvirt owns `opaque` from here and frees it by `free_sender`.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                event.cast_signed(),
                Some(callback),
                opaque,
                Some(free_sender),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: a refused registration leaves `opaque` with us, and nobody else has seen it.
            unsafe { free_sender(opaque) };
            return Err(error);
        }
        self.callbacks.push(id);
        Ok(())
    }

    fn register_close(&mut self, wakes: &UnboundedSender<Wake>) -> Result<(), Error> {
        let opaque = Box::into_raw(Box::new(wakes.clone())).cast();
        // SAFETY: as in `register`. The test driver never calls the free callback: a few bytes a connection, in tests.
        let result = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_close), opaque, Some(free_sender))
        };
        if result < 0 {
            let error = Error::last_error();
            // SAFETY: as in `register`.
            unsafe { free_sender(opaque) };
            return Err(error);
        }
        self.close_callback = true;
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // As in `new`: the calls that follow must not meet it. It does not matter whether there was any.
        let _ = self.connect.set_keep_alive(0, 0);
        for id in &self.callbacks {
            // SAFETY: the connection is still open, and each id came from it. libvirt frees the sender,
            // later if the callback is running now.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id) };
        }
        if self.close_callback {
            // SAFETY: as above; `on_close` is what was registered.
            unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
        }
        let _ = self.connect.close();
    }
}

/// After so many unanswered questions the connection is dead; libvirt counts one more interval.
const KEEPALIVE_COUNT: u32 = 2;

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type Lifecycle = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type Device = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
type Migration = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);
type Metadata = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *const c_char, *mut c_void);

fn generic_lifecycle() -> Generic {
    // SAFETY: libvirt's own VIR_DOMAIN_EVENT_CALLBACK makes this cast, and casts back to the type of the event
    // before the call.
    unsafe { std::mem::transmute::<Lifecycle, Generic>(on_lifecycle) }
}

fn generic_device() -> Generic {
    // SAFETY: as in `generic_lifecycle`.
    unsafe { std::mem::transmute::<Device, Generic>(on_device) }
}

fn generic_metadata() -> Generic {
    // SAFETY: as in `generic_lifecycle`.
    unsafe { std::mem::transmute::<Metadata, Generic>(on_metadata) }
}

fn generic_migration() -> Generic {
    // SAFETY: as in `generic_lifecycle`.
    unsafe { std::mem::transmute::<Migration, Generic>(on_migration) }
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes a live domain and the `opaque` of the registration.
    unsafe { wake(domain, opaque, Wake::Domain) };
    0
}

unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { wake(domain, opaque, Wake::Description) };
}

unsafe extern "C" fn on_metadata(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _kind: c_int,
    _namespace: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { wake(domain, opaque, Wake::Description) };
}

unsafe extern "C" fn on_migration(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _iteration: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { wake(domain, opaque, Wake::Leaving) };
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // virConnectCloseReason
    let reason = match reason {
        1 => "end of file",
        2 => "keepalive was not answered",
        3 => "closed by the client",
        _ => "input/output error",
    };
    // SAFETY: `opaque` is the sender of `register_close`, alive until `free_sender`.
    let wakes = unsafe { &*opaque.cast::<UnboundedSender<Wake>>() };
    let _ = wakes.send(Wake::Closed(reason));
}

/// # Safety
/// `domain` is alive, and `opaque` is a sender that `free_sender` has not freed.
unsafe fn wake(domain: sys::virDomainPtr, opaque: *mut c_void, why: fn(Uuid) -> Wake) {
    let mut uuid = [0; 16];
    // SAFETY: the UUID is read from the object itself, without a call over the connection, into VIR_UUID_BUFLEN bytes.
    let result = unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) };
    // SAFETY: the caller's promise.
    let wakes = unsafe { &*opaque.cast::<UnboundedSender<Wake>>() };
    if result == 0 {
        // The session may be gone already; then nobody needs the wake.
        let _ = wakes.send(why(Uuid::from_bytes(uuid)));
    }
}

/// # Safety
/// `opaque` came from `Box::into_raw` of a sender and is not used again.
unsafe extern "C" fn free_sender(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(opaque.cast::<UnboundedSender<Wake>>()) });
}
