//! Socket options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use crate::system::set_option;

/// An option of a socket, with its value. Which sockets take which is the kernel's to say (`socket(7)`,
/// `tcp(7)`, `ip(7)`, `ipv6(7)`).
///
/// The names are those of Janet's `net/setsockopt` and of the manual pages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// Datagrams may go to broadcast addresses (`SO_BROADCAST`).
    Broadcast(bool),
    /// A port may be taken again while old connections of it linger (`SO_REUSEADDR`).
    ReuseAddress(bool),
    /// Several sockets may share a port, and the kernel spreads the load (`SO_REUSEPORT`).
    ReusePort(bool),
    /// The kernel asks an idle peer now and then whether it is alive (`SO_KEEPALIVE`).
    KeepAlive(bool),
    /// Small writes are sent at once instead of waiting to fill a segment (`TCP_NODELAY`).
    NoDelay(bool),
    /// The kernel's buffer for what is received, in bytes (`SO_RCVBUF`). Linux doubles it, for what it keeps
    /// besides, and caps it at `net.core.rmem_max`.
    ReceiveBufferBytes(i32),
    /// The kernel's buffer for what is sent, in bytes (`SO_SNDBUF`). Linux doubles it, for what it keeps
    /// besides, and caps it at `net.core.wmem_max`.
    SendBufferBytes(i32),
    /// How many hops a multicast datagram of IPv4 may take (`IP_MULTICAST_TTL`).
    MulticastTtl(i32),
    /// Takes part in a multicast group of IPv4, on the interface that the kernel chooses
    /// (`IP_ADD_MEMBERSHIP`).
    JoinGroupV4(Ipv4Addr),
    /// Leaves a multicast group of IPv4 (`IP_DROP_MEMBERSHIP`).
    LeaveGroupV4(Ipv4Addr),
    /// Takes part in a multicast group of IPv6, on the interface that the kernel chooses
    /// (`IPV6_JOIN_GROUP`).
    JoinGroupV6(Ipv6Addr),
    /// Leaves a multicast group of IPv6 (`IPV6_LEAVE_GROUP`).
    LeaveGroupV6(Ipv6Addr),
    /// How many hops a multicast datagram of IPv6 may take (`IPV6_MULTICAST_HOPS`).
    MulticastHopsV6(i32),
    /// How many hops any other packet of IPv6 may take (`IPV6_UNICAST_HOPS`).
    UnicastHopsV6(i32),
}

impl SocketOption {
    /// Sets the option on a socket.
    ///
    /// # Errors
    ///
    /// The kernel's, from `setsockopt(2)`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use ringspun_net::SocketOption;
    ///
    /// let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// SocketOption::Broadcast(true).set(&socket)?;
    /// assert!(socket.broadcast()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set(self, socket: impl AsFd) -> io::Result<()> {
        let descriptor = socket.as_fd().as_raw_fd();
        let (level, name) = self.level_and_name();
        match self {
            Self::Broadcast(on)
            | Self::ReuseAddress(on)
            | Self::ReusePort(on)
            | Self::KeepAlive(on)
            | Self::NoDelay(on) => set_option(descriptor, level, name, &i32::from(on)),
            Self::ReceiveBufferBytes(number)
            | Self::SendBufferBytes(number)
            | Self::MulticastHopsV6(number)
            | Self::UnicastHopsV6(number) => set_option(descriptor, level, name, &number),
            // A byte is what every system takes.
            Self::MulticastTtl(number) => match u8::try_from(number) {
                Ok(byte) => set_option(descriptor, level, name, &byte),
                Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            },
            Self::JoinGroupV4(group) | Self::LeaveGroupV4(group) => {
                let group = libc::in_addr { s_addr: u32::from_ne_bytes(group.octets()) };
                let any = libc::in_addr { s_addr: libc::INADDR_ANY };
                set_option(
                    descriptor,
                    level,
                    name,
                    &libc::ip_mreq { imr_multiaddr: group, imr_interface: any },
                )
            }
            Self::JoinGroupV6(group) | Self::LeaveGroupV6(group) => {
                let group = libc::in6_addr { s6_addr: group.octets() };
                set_option(
                    descriptor,
                    level,
                    name,
                    &libc::ipv6_mreq { ipv6mr_multiaddr: group, ipv6mr_interface: 0 },
                )
            }
        }
    }

    fn level_and_name(self) -> (i32, i32) {
        match self {
            Self::Broadcast(_) => (libc::SOL_SOCKET, libc::SO_BROADCAST),
            Self::ReuseAddress(_) => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            Self::ReusePort(_) => (libc::SOL_SOCKET, REUSE_PORT),
            Self::KeepAlive(_) => (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            Self::NoDelay(_) => (libc::IPPROTO_TCP, libc::TCP_NODELAY),
            Self::ReceiveBufferBytes(_) => (libc::SOL_SOCKET, libc::SO_RCVBUF),
            Self::SendBufferBytes(_) => (libc::SOL_SOCKET, libc::SO_SNDBUF),
            Self::MulticastTtl(_) => (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL),
            Self::JoinGroupV4(_) => (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP),
            Self::LeaveGroupV4(_) => (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP),
            Self::JoinGroupV6(_) => (libc::IPPROTO_IPV6, JOIN_GROUP_V6),
            Self::LeaveGroupV6(_) => (libc::IPPROTO_IPV6, LEAVE_GROUP_V6),
            Self::MulticastHopsV6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS),
            Self::UnicastHopsV6(_) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        }
    }
}

// As in illumos's `sys/socket.h`; the libc crate does not have it.
#[cfg(target_os = "illumos")]
const REUSE_PORT: i32 = 0x2004;
#[cfg(not(target_os = "illumos"))]
const REUSE_PORT: i32 = libc::SO_REUSEPORT;

// The names of RFC 3493, which the libc crate does not have for every system.
#[cfg(any(target_os = "linux", target_os = "android"))]
const JOIN_GROUP_V6: i32 = libc::IPV6_ADD_MEMBERSHIP;
#[cfg(any(target_os = "linux", target_os = "android"))]
const LEAVE_GROUP_V6: i32 = libc::IPV6_DROP_MEMBERSHIP;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const JOIN_GROUP_V6: i32 = libc::IPV6_JOIN_GROUP;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LEAVE_GROUP_V6: i32 = libc::IPV6_LEAVE_GROUP;
