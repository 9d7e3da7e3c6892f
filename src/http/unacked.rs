//! How much of what was written the other side's kernel has not acknowledged.
//!
//! The one place with unsafe code: no library offers this question as a safe function.
#![expect(unsafe_code, reason = "ioctl; the kernel writes one int, which we own")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes written to a TCP socket that its peer has not acknowledged, also after the connection was
/// reset (then: at that moment). `None` if this system does not say.
///
/// Linux: `SIOCOUTQ`, tcp(7).
#[cfg(target_os = "linux")]
pub(super) fn unacked(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, so it is open; TIOCOUTQ, which is SIOCOUTQ for a socket, writes
    // an int to the pointer and nothing else.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done == 0 { u32::try_from(bytes).ok() } else { None }
}

/// See above: not known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn unacked(_socket: BorrowedFd<'_>) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    #[test]
    fn what_was_read_is_acknowledged_and_what_cannot_be_taken_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut writer, _) = listener.accept().unwrap();
        writer.write_all(b"hello").unwrap();
        reader.read_exact(&mut [0; 5]).unwrap();
        while unacked(writer.as_fd()) != Some(0) {
            std::thread::yield_now(); // a delayed acknowledgement comes within 40 ms
        }
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[0; 8192]).is_ok() {}
        assert!(unacked(writer.as_fd()).unwrap() > 0);
    }
}
