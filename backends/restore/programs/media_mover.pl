# Moves files between the live tree, the staged one and the one aside, without a process per file.
# Arguments: what to do, the live root, the directory that is there already and the root lies in (or is), the staging
# directory, the directory aside, uid:gid for a root that must be made. Records come over stdin, each ended by NUL.
# Every line it prints is a word and by how much to raise its count; `stop ...` is why it gave up. Each record can be
# done again after a cut at any point: it looks at what is there.
use strict;
use Errno;
my ($verb, $root, $anchor, $staging, $before, $owner) = @ARGV;
my ($tree, $part) = ("$staging/tree", '.mastovault-part');
my (%good, %raise, $dirs);
my $done = 0;
$| = 1;
$/ = "\0";
umask 0;

sub tell_all { for (sort keys %raise) { print "$_ $raise{$_}\n" } %raise = () }

sub stop {
    my ($what, $path) = @_;
    my $why = "$!";
    tell_all();
    $path =~ tr/\0-\037\177/?/;
    print "stop $what $path: $why\n";
    exit 3;
}

sub is_dir { return ($_[2] & 0170000) == 0040000 }

sub look {
    my ($path) = @_;
    my @is = lstat $path;
    stop('cannot look at', $path) if !@is && !$!{ENOENT} && !$!{ENOTDIR};
    return @is;
}

sub same_inode { my ($one, $other) = @_; return $$one[0] == $$other[0] && $$one[1] == $$other[1] }

sub same_file {
    my ($one, $is, $other, $was) = @_;
    return 0 if ($$is[2] & 0170000) != ($$was[2] & 0170000);
    return readlink($one) eq readlink($other) if ($$is[2] & 0170000) == 0120000;
    return $$is[7] == $$was[7];
}

sub make {
    my ($at, $live, $uid, $gid, $mode) = @_;
    if ($live) {
        # Written down before it is made, so that it can be taken back.
        if (!$dirs) { open $dirs, '>>', "$staging/dirs" or stop('cannot write', "$staging/dirs") }
        syswrite $dirs, "$at\0" or stop('cannot write', "$staging/dirs");
    }
    mkdir $at, 0700 or $!{EEXIST} or stop('cannot make', $at);
    return if !$live;
    chown $uid, $gid, $at;
    chmod $mode & 07777, $at;
}

# Whether the directories above base/path are real directories; missing ones are made, like the one they lie in.
sub parents {
    my ($base, $path, $live, $only_look) = @_;
    my $dir = $path =~ m{^(.*)/}s ? $1 : '';
    return 1 if defined $good{$base} && $good{$base} eq $dir;
    my @like = stat $base;
    if (!@like) {
        return 0 if $only_look;
        if ($live) {
            my ($uid, $gid) = split /:/, $owner;
            my $at = $anchor;
            for my $name (split m{/}, substr $root, length $anchor) {
                next if $name eq '';
                $at .= "/$name";
                make($at, 1, $uid, $gid, 0755) if !-d $at;
            }
        }
        else { make($base, 0) }
        @like = stat $base or stop('cannot make', $base);
    }
    my $at = $base;
    for my $name (split m{/}, $dir) {
        $at .= "/$name";
        my @is = look($at);
        if (@is) { return 0 if !is_dir(@is) }
        elsif ($only_look) { return 0 }
        else { make($at, $live, @like[4, 5, 2]); @is = look($at) or stop('cannot make', $at) }
        @like = @is;
    }
    $good{$base} = $dir;
    return 1;
}

sub near { my ($path) = @_; $path =~ s{[^/]*\z}{$part}s; return $path }

# One name for another at once, also over what is there; from another file system by a copy beside.
sub move {
    my ($from, $to) = @_;
    return if rename $from, $to;
    stop('cannot move', $from) if !$!{EXDEV};
    my $copy = near($to);
    if (system('cp', '-Pp', '--', $from, $copy) != 0) { unlink $copy; stop('cannot copy', $from) }
    rename $copy, $to or stop('cannot place', $to);
    unlink $from or stop('cannot remove', $from);
}

sub place {
    my ($path) = @_;
    my ($new, $live, $old) = ("$tree/$path", "$root/$path", "$before/$path");
    my @new = look($new) or return;
    if (!parents($root, $path, 1)) { $raise{clash}++; return }
    my @live = look($live);
    if (!@live) {
        if (link $new, $live) { unlink $new or stop('cannot remove', $new) }
        elsif ($!{EEXIST}) { $raise{clash}++; return }
        else { move($new, $live) }
    }
    elsif (same_inode(\@new, \@live)) { unlink $new or stop('cannot remove', $new) }
    elsif (is_dir(@live)) { $raise{clash}++; return }
    elsif (same_file($new, \@new, $live, \@live)) { $raise{there}++; return }
    else {
        my @old = look($old);
        if (@old && !same_inode(\@old, \@live)) { $raise{clash}++; return }
        if (!@old) { parents($before, $path, 0) or stop('cannot use', $before); link $live, $old or move($live, $old) }
        move($new, $live);
        $raise{replaced}++;
    }
    $raise{placed}++;
}

sub unplace {
    my ($size, $mtime, $path) = split / /, $_[0], 3;
    my ($new, $live, $old) = ("$tree/$path", "$root/$path", "$before/$path");
    my @old = look($old);
    if (!parents($root, $path, 1, !@old)) { $raise{changed}++ if @old; return }
    my @new = look($new);
    my @live = look($live);
    unlink near($live);
    my $as_listed = @live && !is_dir(@live) && $live[7] == $size && $live[9] == int $mtime;
    if (!@live) { if (@old) { move($old, $live); $raise{back}++ } }
    elsif (@new && (same_inode(\@new, \@live) || ($new[0] != $live[0] && $as_listed))) {
        if (@old) { move($old, $live); $raise{back}++ }
        else { unlink $live or stop('cannot remove', $live) }
        $raise{removed}++;
    }
    elsif (!@new && $as_listed) {
        parents($tree, $path, 0) or stop('cannot use', $tree);
        if (@old) { link $live, $new or move($live, $new); move($old, $live); $raise{back}++ }
        else { move($live, $new) }
        $raise{removed}++;
    }
    elsif (!@new || @old) { $raise{changed}++ }
}

sub mode_to {
    my ($record, $undo) = @_;
    my ($to, $from, $path) = split / /, $record, 3;
    ($to, $from) = ($from, $to) if $undo;
    return if !parents($root, $path, 1, 1);
    my @live = look("$root/$path") or return;
    return if ($live[2] & 0170000) != 0100000 || ($live[2] & 0777) != oct $from;
    chmod oct $to, "$root/$path" or stop('cannot change the mode of', "$root/$path");
    $raise{modes}++;
}

sub aside {
    my ($path) = @_;
    my ($live, $old) = ("$root/$path", "$before/$path");
    return if !parents($root, $path, 1, 1);
    my @live = look($live) or return;
    if (is_dir(@live) || look($old)) { $raise{clash}++; return }
    parents($before, $path, 0) or stop('cannot use', $before);
    move($live, $old);
    $raise{aside}++;
}

sub unaside {
    my ($path) = @_;
    my ($live, $old) = ("$root/$path", "$before/$path");
    look($old) or return;
    unlink near($live);
    if (look($live) || !parents($root, $path, 1)) { $raise{changed}++; return }
    move($old, $live);
    $raise{back}++;
}

my %verbs = (
    place => sub { place((split / /, $_[0], 3)[2]) },
    unplace => \&unplace,
    modes => sub { mode_to($_[0], 0) },
    unmodes => sub { mode_to($_[0], 1) },
    aside => \&aside,
    unaside => \&unaside,
);
my $each = $verbs{$verb};
while (defined(my $record = <STDIN>)) {
    chomp $record;
    $each->($record);
    if (++$raise{done} >= 500) { tell_all() }
}
tell_all();
