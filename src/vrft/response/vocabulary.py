"""The words that may stand around an answer: words of scales, lead-ins, and numbers, in eleven languages.

A closed answer is read when it contains declared names and these words only, so a hedge need not be listed to be
refused. Words are in their usual spelling and folded by ``tokens.fold_accents`` before the lookup.
"""

TITLES = """
grade grading stage staging pattern phototype points class category level score
subscore rating degree group type severity classification
grad stadium stufe klasse kategorie schweregrad wert punktzahl gruppe typ
stade degré niveau catégorie sévérité gravité cotation groupe
grado estadio etapa nivel clase categoría puntuación puntaje grupo tipo gravedad severidad
grau estágio estádio nível classe pontuação escore gravidade severidade
stadio livello categoria punteggio gravità gruppo
степень степени стадия стадии класс класса категория категории уровень балл балла баллов градация группа тип тяжесть
тяжести оценка
درجة الدرجة بدرجة مرحلة المرحلة فئة الفئة مستوى المستوى صنف الصنف تصنيف التصنيف شدة الشدة
级 级别 病变 期 度 等级 分级 分期 分类 类 类别 程度 评分 分 阶段 型 第 严重程度
級 級別 等級 分級 分類 類 類別 評分 階段 嚴重程度
グレード ステージ クラス レベル スコア カテゴリー カテゴリ 段階 重症度 病期
등급 단계 급 기 도 등급은 레벨 클래스 점 점수 스테이지 그레이드 범주 중증도 병기 제
"""
"""Titles of grades, before or after the number."""

SCALES = """
acr bi-rads birads pi-rads pirads ti-rads tirads acr-ti-rads li-rads lirads lr lung-rads lungrads o-rads orads 
ni-rads nirads ckd gg c-rads vi-rads cad-rads rads gleason isup who icdr etdrs npdr dr dme rop amd kl kellgren lawrence
kellgren-lawrence oarsi disease ajcc uicc tnm figo bosniak fitzpatrick
mayo endoscopic skin functional physical status clinical
pathological tumor tumour
c-tirads eu-tirads k-l kellgren-and-lawrence her2/neu forrest schatzker tanner pfirrmann meary modic fazekas nyha asa
ecog child-pugh metavir ishak nas banff fuhrman bloom-richardson nottingham her2 ihc breslow clark aspects mrs nihss
diabetic-retinopathy retinopathy osteoarthritis 糖尿病视网膜病变 糖尿病網膜症 rétinopathie diabétique
retinopatía diabética диабетическая ретинопатия retinopatia diabetica diabetische retinopathie
"""
"""Names of scales and of graded diseases; they may stand around grades only."""

LEAD_INS = """
answer answers final the this it is its it's i'd prediction predicted diagnosis finding findings result conclusion
assessment impression overall my correct therefore thus so hence image scan picture photo radiograph shows of name
label option choice letter definitely certainly clearly absolutely i-choose i-select i-pick i-say i-would-say
i-would-choose
antwort die das der ist lautet endgültige diagnose befund ergebnis bild zeigt es dieses
réponse la le est finale c'est diagnostic résultat image l'image montre cette de du
respuesta el es diagnóstico resultado imagen muestra esta correcta
resposta a-resposta o é diagnóstico o-diagnóstico imagem a-imagem mostra correta
risposta il è diagnosi risultato immagine mostra di
ответ окончательный итоговый диагноз результат это изображение показывает
الإجابة الاجابة النهائية هي هو الجواب التشخيص النتيجة الصورة
答案 答案是 答案为 最终答案是 最终答案为 回答是 结果是 结果为 诊断是 诊断为
最终 最终答案 是 为 结果 诊断 结论 因此 所以 该 图像 显示 选 选择 选项 项 的 正确
答え 正解 回答 は です である 診断 結果 最終 最終的な 選択肢 選択 の
답 정답 답변 은 는 이 가 입니다 이다 최종 진단 결과 의 선택
最終 是 為 診斷 結果 選 選擇 選項 圖像 顯示 正確
"""
"""Words that introduce an answer or close its sentence."""

ARTICLES = "a an un une une ein eine einen um uma uno una o la le el il der die das the"
"""Articles; a word must follow."""

SEVERITIES = """
normal none minimal mild moderate severe advanced trace proliferative non-proliferative nonproliferative very-severe
leicht gering mäßig mittel mittelgradig mittelschwer schwer leichtgradig hochgradig keine
léger légère modéré modérée sévère minime leve moderado moderada severo severa lieve moderato moderata
лёгкая легкая лёгкой легкой умеренная умеренной средняя средней тяжёлая тяжелая тяжёлой тяжелой норма
خفيف خفيفة متوسط متوسطة شديد شديدة طبيعي
轻度 轻微 轻 中度 中等 重度 重 极重度 严重 正常 輕度 輕微 嚴重 極重度 軽度 軽症 中等度 中等症 重症 高度
경도 경증 중등도 중증 고도 정상 심한
"""
"""Words of severity, without a declared name; at most one may stand beside a number."""

NONE = "normal none keine норма طبيعي 正常 정상"
"""Words of severity of the lowest grade only."""

CARDINALS = [
    "zero zéro cero ноль нулевая 零 〇 영",
    "one first eins erste erster ersten uno primer primero primera premier première primo prima primeiro один первая"
    " الأولى 一",
    "two second zwei zweite zweiter zweiten deux deuxième dos segundo segunda dois due secondo вторая два الثانية"
    " 二 两 兩",
    "three third drei dritte dritter dritten trois troisième tres tercer tercera três terceiro tre terzo три третья"
    " الثالثة 三",
    "four fourth vier vierte vierter quatre quatrième cuatro cuarto quatro quarto quattro четыре четвертая الرابعة 四",
    "five fifth fünf fünfte fünfter cinq cinquième cinco quinto cinque пять пятая الخامسة 五",
    "six sechs seis sei шесть 六",
    "seven sieben sept siete sete sette семь 七",
    "eight acht huit ocho oito otto восемь 八",
    "nine neun neuf nueve nove девять 九",
    "ten zehn dix diez dez dieci десять 十",
    "eleven elf onze undici одиннадцать",
    "twelve zwölf douze doce doze dodici двенадцать",
]
"""Cardinals and ordinals from 0; German *null* is left out, since programs write it for a missing value."""

ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
"""Roman numerals from 1."""

SINO_KOREAN = "일이삼사오육칠팔구"
"""Digits from 1, before a title."""

BEFORE = "程度"
"""A title that may only precede a grade: after a grade it is Japanese for *about*."""

ORDINALS = "st nd rd th e er ème eme ère й я ый ая ой º °"
"""Suffixes of digits."""
