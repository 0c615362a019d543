//! Socket options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use crate::system::set_option;

/// A socket option with its value. The manual pages say which sockets have which options (`socket(7)`, `tcp(7)`,
/// `ip(7)`, `ipv6(7)`).
///
/// The names follow Janet's `net/setsockopt` and the manual pages.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketOption {
    /// Allows sending datagrams to broadcast addresses (`SO_BROADCAST`).
    Broadcast(bool),
    /// Allows binding to a port that old connections still use (`SO_REUSEADDR`).
    ReuseAddress(bool),
    /// Allows several sockets to share a port; the kernel distributes the load (`SO_REUSEPORT`).
    ReusePort(bool),
    /// Makes the kernel probe idle peers (`SO_KEEPALIVE`).
    KeepAlive(bool),
    /// Sends small writes immediately instead of waiting to fill a segment (`TCP_NODELAY`).
    NoDelay(bool),
    /// The size of the kernel's receive buffer in bytes (`SO_RCVBUF`). Linux doubles it, for its own overhead, and
    /// limits it to `net.core.rmem_max`.
    ReceiveBufferBytes(i32),
    /// The size of the kernel's send buffer in bytes (`SO_SNDBUF`). Linux doubles it, for its own overhead, and limits
    /// it to `net.core.wmem_max`.
    SendBufferBytes(i32),
    /// The hop limit of IPv4 multicast datagrams (`IP_MULTICAST_TTL`).
    MulticastTtl(i32),
    /// Joins an IPv4 multicast group, on the interface that the kernel chooses (`IP_ADD_MEMBERSHIP`).
    JoinGroupV4(Ipv4Addr),
    /// Leaves an IPv4 multicast group (`IP_DROP_MEMBERSHIP`).
    LeaveGroupV4(Ipv4Addr),
    /// Joins an IPv6 multicast group, on the interface that the kernel chooses (`IPV6_JOIN_GROUP`).
    JoinGroupV6(Ipv6Addr),
    /// Leaves an IPv6 multicast group (`IPV6_LEAVE_GROUP`).
    LeaveGroupV6(Ipv6Addr),
    /// The hop limit of IPv6 multicast datagrams (`IPV6_MULTICAST_HOPS`).
    MulticastHopsV6(i32),
    /// Whether an IPv6 socket refuses IPv4 (`IPV6_V6ONLY`), before it is bound.
    V6Only(bool),
    /// The hop limit of other IPv6 packets (`IPV6_UNICAST_HOPS`).
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
            | Self::V6Only(on)
            | Self::NoDelay(on) => set_option(descriptor, level, name, &i32::from(on)),
            Self::ReceiveBufferBytes(number)
            | Self::SendBufferBytes(number)
            | Self::MulticastHopsV6(number)
            | Self::UnicastHopsV6(number) => set_option(descriptor, level, name, &number),
            // All systems accept a byte.
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
            Self::V6Only(_) => (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
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
