-- KEYS: the index of the sid or the subject. ARGV: number of this partition, "all" or "without sid", latest issued at or "",
-- issued at of the token, its id, when the logout arrives or "" if it leaves no tombstone, retention of the tombstone,
-- retention of the marks, reason. Answers whether there are sessions that it spares or that cannot be read, then the names
-- of those of other partitions, then those that it ended.
only_here()
local partition, latest, without_sids = tonumber(ARGV[3]), tonumber(ARGV[5]), ARGV[4] == 'without sid'
local unreadable, elsewhere, answer = false, {}, {'none', ''}

if ARGV[8] ~= '' then
    local index = KEYS[1]
    if without_sids then index = without_sid(index) end
    bury(index, ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]))
else
    -- Asked for again it has to be on the replicas all the same.
    redis.call('SET', prefix .. ':asked', '', 'PX', 1000)
end
for _, hex in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if tonumber(string.sub(hex, 1, 2), 16) % 64 ~= partition then
        elsewhere[#elsewhere + 1] = hex
    else
        local is_readable, head = pcall(read, redis.call('GET', prefix .. ':s:' .. hex))
        if not is_readable then
            unreadable = true
        elseif not head then
            redis.call('SREM', KEYS[1], hex)
        elseif (not without_sids or head.i == '') and (not latest or head.t <= latest) then
            finish(answer, hex, ARGV[11], tonumber(ARGV[10]))
        else
            answer[1] = 'some'
        end
    end
end
-- The others have ended, this one may have to.
if unreadable then answer[1] = 'unreadable' end
answer[2] = table.concat(elsewhere, ' ')
return answer
