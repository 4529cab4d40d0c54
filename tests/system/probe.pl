#!/usr/bin/perl
# Tries to write a program and to execute it: in each directory of each mount that is writable, and in memory.
# Says what it has tried, and "EXECUTED" where that worked.
use strict;
use warnings;

my $program = "#!/usr/bin/perl\nexit 42;\n";

sub execute {
    my ($place, $file) = @_;
    my $status = system { $file } $file;
    print "$place: ", ($status == 42 << 8 ? "EXECUTED" : "written, not executed: $!"), "\n";
}

sub try_in {
    my $file = "$_[0]/forkd-probe";
    open my $out, '>', $file or return;
    print $out $program;
    close $out or return;
    chmod 0755, $file;
    execute($_[0], $file);
    unlink $file;
}

# Each directory of one file system, as far as this user may go.
sub walk {
    my ($directory, $device) = @_;
    my @stat = lstat $directory or return;
    return if !-d _ || $stat[0] != $device;
    try_in($directory) if -w $directory;
    opendir my $entries, $directory or return;
    walk("$directory/$_", $device) for grep { !/^\.\.?$/ } readdir $entries;
}

$SIG{__WARN__} = sub { }; # system() warns of what is expected
$| = 1; # or its children would say it again
open my $mounts, '<', '/proc/self/mountinfo' or die "mountinfo: $!";
my %options = map { (split)[4, 5] } <$mounts>; # of several mounts at one place, the last is on top
for my $place (sort keys %options) {
    next if $options{$place} !~ /\brw\b/;
    my @stat = stat $place or next;
    print "mount $place $options{$place}\n";
    walk($place, $stat[0]);
    if (-f $place && -w $place) { print "$place: EXECUTED, or could be: it is writable\n" }
}
$^F = 1000; # the interpreter must have the descriptor, too
my $memory = syscall($ENV{MEMFD_CREATE}, my $name = "probe\0", 0);
if ($memory < 0) { print "memory: not written: $!\n" }
else {
    open my $out, '>&=', $memory or die "memfd: $!";
    select $out;
    $| = 1;
    print $program;
    select STDOUT;
    execute('memory', "/proc/self/fd/$memory");
}
print "all tried\n";
