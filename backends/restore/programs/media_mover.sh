# The same as media_mover.pl where there is no perl: slower, a few processes for each file.
# Arguments: what to do, the live root, the anchor, the staging directory, the directory aside, uid:gid; then records.
verb=$1 root=$2 anchor=$3 staging=$4 before=$5 owner=$6
shift 6
tree=$staging/tree part=.mastovault-part good_root= good_tree= good_before=
umask 0

stop() {
  shown=$(printf %s "$2" | tr -c '[:print:]' '?')
  printf 'stop %s %s: %s\n' "$1" "$shown" "${3:-it failed}"
  exit 255
}
raise() { printf '%s 1\n' "$1"; }
there() { [ -e "$1" ] || [ -h "$1" ]; }
real_dir() { [ -d "$1" ] && [ ! -h "$1" ]; }
inode() { stat -c %d:%i -- "$1"; }
kind() { stat -c %F:%s -- "$1" | sed 's/^regular empty file/regular file/'; }
same() {
  if [ -h "$1" ] && [ -h "$2" ]; then [ "$(readlink -- "$1"; echo .)" = "$(readlink -- "$2"; echo .)" ]
  else [ "$(kind "$1")" = "$(kind "$2")" ]; fi
}
make() { # path live owner mode
  if [ "$2" = 1 ]; then printf '%s\0' "$1" >>"$staging/dirs" || stop 'cannot write' "$staging/dirs"; fi
  said=$(mkdir -m 700 -- "$1" 2>&1) || [ -d "$1" ] || stop 'cannot make' "$1" "${said##*: }"
  [ "$2" = 1 ] || return 0
  chown -- "$3" "$1" 2>/dev/null
  chmod -- "$4" "$1" 2>/dev/null
  return 0
}
descend() { # from names live only_look any-owner any-mode
  at=$1 rest=$2/ like= mode=
  while [ -n "$rest" ]; do
    name=${rest%%/*} rest=${rest#*/}
    [ -n "$name" ] || continue
    above=$at at=$at/$name
    if [ -n "$5" ] && [ -d "$at" ]; then continue; fi
    if there "$at"; then real_dir "$at" || return 1
    elif [ "$4" = 1 ]; then return 1
    else
      like=${5:-$(stat -c %u:%g -- "$above")} mode=${6:-$(stat -L -c %a -- "$above")}
      make "$at" "$3" "$like" "$mode"
    fi
  done
}
parents() { # base path live only_look
  case $2 in */*) dir=${2%/*} ;; *) dir= ;; esac
  if [ ! -d "$1" ]; then
    [ "${4:-}" = 1 ] && return 1
    if [ "$3" = 1 ]; then descend "$anchor" "${root#"$anchor"}" 1 '' "$owner" 755 || return 1
    else make "$1" 0; fi
  fi
  [ -z "$dir" ] || descend "$1" "$dir" "$3" "${4:-}" '' ''
}
near() { printf %s "${1%/*}/$part"; }
move() {
  if [ "$(stat -c %d -- "${1%/*}")" = "$(stat -c %d -- "${2%/*}")" ]; then
    said=$(mv -fT -- "$1" "$2" 2>&1) || stop 'cannot move' "$1" "${said##*: }"
  else
    copy=$(near "$2")
    said=$(cp -Pp -- "$1" "$copy" 2>&1) || { rm -f -- "$copy"; stop 'cannot copy' "$1" "${said##*: }"; }
    said=$(mv -fT -- "$copy" "$2" 2>&1) || stop 'cannot place' "$2" "${said##*: }"
    rm -f -- "$1" || stop 'cannot remove' "$1"
  fi
}
hard() { ln -PT -- "$1" "$2" 2>/dev/null; }

place() {
  new=$tree/$path live=$root/$path old=$before/$path
  there "$new" || return 0
  parents "$root" "$path" 1 || { raise clash; return 0; }
  if ! there "$live"; then
    if hard "$new" "$live"; then rm -f -- "$new" || stop 'cannot remove' "$new"
    elif there "$live"; then raise clash; return 0
    else move "$new" "$live"; fi
  elif [ "$(inode "$new")" = "$(inode "$live")" ]; then rm -f -- "$new" || stop 'cannot remove' "$new"
  elif real_dir "$live"; then raise clash; return 0
  elif same "$new" "$live"; then raise there; return 0
  else
    if there "$old"; then
      [ "$(inode "$old")" = "$(inode "$live")" ] || { raise clash; return 0; }
    else
      parents "$before" "$path" 0 || stop 'cannot use' "$before"
      hard "$live" "$old" || move "$live" "$old"
    fi
    move "$new" "$live"
    raise replaced
  fi
  raise placed
}
unplace() {
  new=$tree/$path live=$root/$path old=$before/$path only=1 listed=
  there "$old" && only=
  parents "$root" "$path" 1 "$only" || { [ -n "$only" ] || raise changed; return 0; }
  rm -f -- "$(near "$live")"
  if there "$live" && ! real_dir "$live" && [ "$(stat -c '%s %Y' -- "$live")" = "$size $mtime" ]; then listed=1; fi
  if ! there "$live"; then
    if there "$old"; then move "$old" "$live"; raise back; fi
  elif there "$new" && { [ "$(inode "$new")" = "$(inode "$live")" ] ||
      { [ -n "$listed" ] && [ "$(stat -c %d -- "$new")" != "$(stat -c %d -- "$live")" ]; }; }; then
    if there "$old"; then move "$old" "$live"; raise back
    else rm -f -- "$live" || stop 'cannot remove' "$live"; fi
    raise removed
  elif ! there "$new" && [ -n "$listed" ]; then
    parents "$tree" "$path" 0 || stop 'cannot use' "$tree"
    if there "$old"; then hard "$live" "$new" || move "$live" "$new"; move "$old" "$live"; raise back
    else move "$live" "$new"; fi
    raise removed
  elif ! there "$new" || there "$old"; then raise changed; fi
}
mode_to() { # to from
  live=$root/$path
  parents "$root" "$path" 1 1 || return 0
  [ -f "$live" ] && [ ! -h "$live" ] && [ "$(stat -c %a -- "$live")" = "$2" ] || return 0
  said=$(chmod -- "$1" "$live" 2>&1) || stop 'cannot change the mode of' "$live" "${said##*: }"
  raise modes
}
aside() {
  live=$root/$path old=$before/$path
  parents "$root" "$path" 1 1 && there "$live" || return 0
  if real_dir "$live" || there "$old"; then raise clash; return 0; fi
  parents "$before" "$path" 0 || stop 'cannot use' "$before"
  move "$live" "$old"
  raise aside
}
unaside() {
  live=$root/$path old=$before/$path
  there "$old" || return 0
  rm -f -- "$(near "$live")"
  if there "$live" || ! parents "$root" "$path" 1; then raise changed; return 0; fi
  move "$old" "$live"
  raise back
}

for record do
  case $verb in
    aside | unaside) path=$record; "$verb" ;;
    *)
      first=${record%% *} rest=${record#* }
      second=${rest%% *} path=${rest#* }
      case $verb in
        place) place ;;
        unplace) size=$first mtime=${second%.*}; unplace ;;
        modes) mode_to "$first" "$second" ;;
        unmodes) mode_to "$second" "$first" ;;
      esac
      ;;
  esac
  raise done
done
