#!/usr/bin/perl
# Counts its visits in PostgreSQL and the last visitor in Redis. It needs the database when it starts and ends without
# it, and says (sd_notify(3)) when it listens.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Socket::UNIX;

my ($psql) = glob "/usr/lib/postgresql/*/bin/psql";

sub output {
    open(my $from, "-|", @_) or die "cannot run $_[0]: $!\n";
    my $text = do { local $/; <$from> };
    close $from or die "$_[0] has failed\n";
    chomp $text;
    return $text;
}

sub sql { return output($psql, "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", $_[0]) }

sub answer {
    my ($path) = @_;
    return `cat /etc/shop` if $path eq "/sign";
    return "redis: " . output("redis-cli", "get", "visitor") if $path eq "/visitor";
    return "visit " . sql("insert into visits default values returning id");
}

sql("create table if not exists visits (id serial)");
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1:8000", Listen => 16, ReuseAddr => 1) or die "listen: $@\n";
my $manager = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Peer => $ENV{NOTIFY_SOCKET}) or die "notify: $!\n";
$manager->send("READY=1\nSTATUS=open");
while (1) {
    my $client = $server->accept or next;
    my ($path) = (<$client> // "") =~ m{^GET (\S+)} or next;
    while (<$client>) { last if /^\r?\n/ }
    my $text = eval { answer($path) };
    my ($status, $body) = defined $text ? ("200 OK", $text) : ("503 Service Unavailable", $@);
    print $client "HTTP/1.0 $status\r\nContent-Type: text/plain\r\n\r\n$body\n";
    close $client;
}
