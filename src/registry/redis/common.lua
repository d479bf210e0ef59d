-- Everything that a script reads or writes is of one partition, whose keys all begin with the prefix.
--
-- A live session is "L<header as JSON>\n<record>", one that ended "E<reason> <hash of its subject>".
-- Header: v version, i and u names of the sid and subject indices ("" without sid), t issued at (ms), r why it expires, c how
-- long before that it stops to stand by itself (ms).
local prefix, channel = ARGV[1], ARGV[2]

-- How much later than a logout arrived an attempt may have begun that it covers.
local COVER_TOLERANCE = 30000
-- How long the store keeps a record after its last deadline, should no replica run to remove it.
local SLACK = 3600000
-- So many tokens of one second are told apart.
local MOST_TOKENS = 32

-- A replica refuses writes, also those without effect, and so does the node of a cluster that keys are leaving: after this
-- nothing is said from half of the truth, not even by a script that finds nothing to write.
local function only_here()
    redis.call('SET', prefix .. ':none', '', 'XX')
end

-- The store's clock, by which everything is dated, kept and removed: those of replicas may differ.
local function now()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number)
    return string.format('%.0f', number)
end

-- The header of a live session; nothing of one that ended or that nobody knows. A value of another kind, from a newer
-- version perhaps, is an error: what cannot be read has not ended.
local function read(value)
    if not value or string.sub(value, 1, 1) == 'E' then return nil end
    local line_end = string.find(value, '\n', 1, true)
    if string.sub(value, 1, 1) ~= 'L' or not line_end then error('a stored session cannot be read') end
    return cjson.decode(string.sub(value, 2, line_end - 1))
end

-- Why it ended, where that is known: the last of an answer, as nothing ends a list.
local function reason_of(value)
    if value then return string.match(value, '^E(%S*)') end
    return nil
end

-- Writes what there is once more: what is told has to be on the replicas, and WAIT speaks of writes of its own connection only. (Redis 7.0
-- waits for all that was written before; that is not promised.)
local function touch()
    local left = redis.call('PTTL', KEYS[1])
    if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
end

-- The answer that a session is no more, of its value.
local function gone(value)
    if value then touch() end
    return {'gone', reason_of(value)}
end

local function keep_for(key, ttl)
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end

-- When the logout arrived that the tombstone of an index remembers. An earlier version wrote only until when it did so, ten
-- minutes after.
local function arrival(index)
    if index == '' then return nil end
    local tomb = index .. ':t'
    if redis.call('TYPE', tomb).ok == 'string' then return tonumber(redis.call('GET', tomb)) - 600000 end
    local found = redis.call('HMGET', tomb, 'arrived', 'until', 'kept')
    local arrived, ends = tonumber(found[1] or ''), tonumber(found[2] or '')
    -- Where an earlier version has written since.
    if ends and found[2] ~= found[3] then return math.max(arrived or 0, ends - 600000) end
    return arrived
end

-- The name of a subject's sessions that have no sid, for the tombstone of a logout that reached them by an unknown sid.
local function without_sid(subject)
    return subject .. ':n'
end

-- When the last of those logouts arrived that cover a login.
local function covered(head, began, seen)
    local last = nil
    local most_telling = head.i
    if head.i == '' then most_telling = without_sid(head.u) end
    for _, index in ipairs({most_telling, head.u}) do
        local arrived = arrival(index)
        if arrived and began <= arrived + COVER_TOLERANCE and seen < arrived then
            last = math.max(last or 0, arrived)
        end
    end
    return last
end

-- Remembers a logout that arrives now, of a token (issued at, id) or of the application ("", ""). Whoever sends one token again
-- renews nothing. Now is by the clock of attempts, as far as it is known, and by the one here: too late costs a redirect,
-- too early would let in a login that it has overtaken.
local function bury(index, issued_at, id, elsewhere, retention)
    local tomb = index .. ':t'
    local here, before = math.max(elsewhere, now()), arrival(index)
    if redis.call('TYPE', tomb).ok == 'string' then redis.call('DEL', tomb) end
    local latest, ids = redis.call('HGET', tomb, 'iat') or '', redis.call('HGET', tomb, 'ids') or ''
    local renews = true
    if before and issued_at ~= '' and latest ~= '' then
        local age = tonumber(issued_at) - tonumber(latest)
        renews = age > 0 or (age == 0 and not string.find(ids, id, 1, true))
        if age > 0 then latest, ids = issued_at, '' end
    elseif issued_at ~= '' then
        latest, ids = issued_at, ''
    end
    if renews then ids = string.sub(ids .. id, -MOST_TOKENS * 32) end
    local arrived = before or here
    if renews then arrived = math.max(arrived, here) end
    local ends = arrived + retention
    -- Written in any case: it has to be on the replicas also when it is asked for again.
    redis.call('HSET', tomb, 'arrived', text(arrived), 'until', text(ends), 'kept', text(ends), 'iat', latest, 'ids', ids)
    redis.call('PEXPIRE', tomb, text(math.max(ends - here, 1)))
end

-- Stores a session that is left so many milliseconds.
local function insert(hex, head, value, left)
    local ttl = left + SLACK
    redis.call('SET', prefix .. ':s:' .. hex, value, 'PX', text(ttl))
    if head.i ~= '' then redis.call('SADD', head.i, hex); keep_for(head.i, ttl) end
    redis.call('SADD', head.u, hex); keep_for(head.u, ttl)
    redis.call('ZADD', prefix .. ':x', text(now() + left), hex)
end

-- Takes a session out of everything but its own key; returns the names of the application data that is bound to it.
local function detach(hex, head)
    if head.i ~= '' then redis.call('SREM', head.i, hex) end
    redis.call('SREM', head.u, hex)
    redis.call('ZREM', prefix .. ':x', hex)
    redis.call('DEL', prefix .. ':l:' .. hex)
    local bound = prefix .. ':b:' .. hex
    local data = table.concat(redis.call('SMEMBERS', bound), ' ')
    redis.call('DEL', bound)
    return data
end

-- Ends a session for good, for a reason or for that of its expiry, and adds its name, its value and the names of its
-- application data to the answer. Says whether it was live.
local function finish(answer, hex, reason, retention)
    local key = prefix .. ':s:' .. hex
    local value = redis.call('GET', key)
    local head = read(value)
    if not head then return false end
    reason = reason or head.r or 'absolute_lifetime'
    redis.call('SET', key, 'E' .. reason .. ' ' .. string.sub(head.u, -64), 'PX', retention)
    for _, part in ipairs({hex, value, detach(hex, head)}) do answer[#answer + 1] = part end
    redis.call('PUBLISH', channel, hex .. ' ' .. reason)
    return true
end
